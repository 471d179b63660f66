using System.Globalization;
using System.Text;
using MicroVm.Cli.Parsing;
using MicroVm.Oci.Config;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Configuration;
using MicroVm.Sandbox.Templates;
using MicroVm.Sandbox.Vm;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm template</c>: the saved VMs that containers can be started from.</summary>
internal static class TemplateCommand
{
    internal static Command Command => new()
    {
        Name = "template",
        Arguments = "create | list | verify [NAME] | delete NAME | delete --outdated",
        Help = "make and look after templates, from which VMs start faster than by booting (docs/SNAPSHOTS.md)",
        MinArguments = 1,
        MaxArguments = 2,
        Flags =
        [
            new("vm-memory", "MIB", "create: guest memory in MiB (default: that of a container without a memory limit)"),
            new("vcpus", "N", "create: number of vCPUs (default: that of a container without a CPU quota)"),
            new("cpu-template", "NAME", "create: what CPUID shows of the processor (default: host)"),
            new("start-timeout", "SECONDS", $"create: how long the guest may take to boot (default: {VmOptions.DefaultStartTimeoutSeconds})"),
            new("background", null, "create: make it only if it is missing, no other process makes one, it did not fail before, and the disk has room"),
            new("quiet, q", null, "list: display only names"),
            new("outdated", null, "delete: those from which no VM starts any more, since the runtime changed or the host was booted"),
        ],
        Run = call =>
        {
            string? name = call.Arguments.Count > 1 ? call.Arguments[1] : null;
            switch (call.Arguments[0])
            {
                case "create" when name is null && call.Flags.On("background"):
                    (VmShape shape, TimeSpan timeout) = Shape(call);
                    (string? made, string? reason) = BackgroundTemplate.Make(shape, timeout);
                    Output.Write((made ?? $"no template is made: {reason}") + "\n");
                    return 0;
                case "create" when name is null:
                    Output.Write(Create(call) + "\n");
                    return 0;
                case "list" when name is null:
                    Output.Write(List(new TemplateStore().List(), call.Flags.On("quiet")));
                    return 0;
                case "verify":
                    Verify(name);
                    return 0;
                case "delete" when name is null && call.Flags.On("outdated"):
                    Output.Write(string.Concat(new TemplateStore().DeleteOutdated().Select(n => n + "\n")));
                    return 0;
                case "delete" when name is not null && !call.Flags.On("outdated"):
                    new TemplateStore().Delete(name);
                    return 0;
                default:
                    throw new SandboxException($"\"template {string.Join(' ', call.Arguments)}\" is not known: use create, list, verify [NAME], delete NAME or delete --outdated");
            }
        },
    };

    private static string Create(Invocation call)
    {
        (VmShape shape, TimeSpan timeout) = Shape(call);
        return TemplateMaker.Create(shape, timeout);
    }

    private static (VmShape Shape, TimeSpan Timeout) Shape(Invocation call)
    {
        RuntimeConfiguration host = call.Configuration;
        VmOptions options = new()
        {
            MemoryMiB = call.Flags.Number("vm-memory"),
            Vcpus = call.Flags.Number("vcpus"),
            DefaultMemoryMiB = host.MemoryMiB,
            DefaultVcpus = host.Vcpus,
            MaxVcpus = host.MaxVcpus,
            CpuTemplate = call.Flags.Text("cpu-template") ?? host.CpuTemplate,
            StartTimeoutSeconds = call.Flags.Number("start-timeout") ?? host.StartTimeoutSeconds,
        };
        if (host.Kernel is not null || host.KernelArguments is not null)
        {
            throw new SandboxException($"{host.Path}: VMs with a kernel or kernel-args of their own are not started from templates");
        }

        // A container without limits of its own.
        VmShape shape = VmShape.Resolve(new Spec { OciVersion = "1.0.0" }, options, Host.MemoryMiB, Environment.ProcessorCount);
        return (shape, TimeSpan.FromSeconds(options.StartTimeoutSeconds ?? VmOptions.DefaultStartTimeoutSeconds));
    }

    private static void Verify(string? name)
    {
        TemplateStore store = new();
        foreach (string each in name is null ? store.List().Select(t => t.Name) : [name])
        {
            store.Verify(each);
            Output.Write($"{each}: ok\n");
        }
    }

    /// <summary>A line for each template.</summary>
    internal static string List(IReadOnlyList<TemplateInfo> templates, bool quiet)
    {
        StringBuilder text = new();
        if (!quiet)
        {
            text.Append(CultureInfo.InvariantCulture, $"{"NAME",-18}{"MEMORY",-10}{"VCPUS",-7}{"SAVED",-10}{"CREATED",-22}PROBLEM\n");
        }

        foreach (TemplateInfo template in templates)
        {
            if (quiet)
            {
                text.Append(template.Name).Append('\n');
                continue;
            }

            SnapshotHeader header = template.Header ?? new SnapshotHeader();
            string created = template.Header is null ? "" : DateTimeOffset.UnixEpoch.AddSeconds(Math.Clamp(header.CreatedAt, 0, uint.MaxValue)).ToString("yyyy-MM-ddTHH:mm:ssZ", CultureInfo.InvariantCulture);
            text.Append(string.Create(
                CultureInfo.InvariantCulture,
                $"{template.Name,-18}{header.MemoryMiB + " MiB",-10}{header.Vcpus,-7}{(header.MemoryBytes >> 20) + " MiB",-10}{created,-22}{template.Problem}").TrimEnd()).Append('\n');
        }

        return text.ToString();
    }
}
