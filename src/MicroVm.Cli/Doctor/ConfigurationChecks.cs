using System.Globalization;
using MicroVm.Sandbox.Configuration;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Cli.Doctor;

/// <summary>What the configuration file and the global flags come to.</summary>
internal static class ConfigurationChecks
{
    /// <summary>Every value that is in force.</summary>
    internal static IEnumerable<Finding> All(RuntimeConfiguration c)
    {
        yield return new(FindingState.Ok, "configuration", c.Path ?? $"none: there is no {RuntimeConfiguration.DefaultPath}");
        yield return Value("memory", string.Create(CultureInfo.InvariantCulture, $"{c.MemoryMiB ?? VmShape.DefaultMemoryMiB} MiB for a container without a limit"));
        yield return Value("vcpus", string.Create(CultureInfo.InvariantCulture, $"{c.Vcpus ?? 1} for a container without a CPU quota"));
        yield return Value("max-vcpus", string.Create(CultureInfo.InvariantCulture, $"{c.MaxVcpus ?? Math.Min(VmShape.DefaultMaxVcpus, Environment.ProcessorCount)} while a VM runs, where limits of its containers ask for them"));
        yield return Value("cpu-template", c.CpuTemplate ?? VmmControl.CpuTemplateNames.Host);
        yield return Value("kernel", c.Kernel ?? RuntimeFiles.Locate().Kernel);
        yield return Value("kernel-args", c.KernelArguments ?? "none");
        yield return Value("start-timeout", string.Create(CultureInfo.InvariantCulture, $"{c.StartTimeoutSeconds ?? VmOptions.DefaultStartTimeoutSeconds} s for each step of a start"));
        yield return Value("private-images", c.PrivateImages == true ? "yes: each VM has copies of its own" : "no: VMs share the pages of guest kernel and agent");
        yield return Value("template", c.MakesTemplates ? "yes: VMs start from a template where one fits, and one is made in the background where none does" : c.Template == true ? "yes: VMs start from a template where one fits" : "no: every VM boots");
        yield return Value("allowed-annotations", c.AllowedAnnotations is { Count: > 0 } allowed ? string.Join(' ', allowed) : "none");
    }

    private static Finding Value(string key, string value) => new(FindingState.Ok, "  " + key, value);
}
