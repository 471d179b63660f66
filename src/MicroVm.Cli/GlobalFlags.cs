using MicroVm.Cli.Parsing;
using MicroVm.Linux;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Configuration;
using MicroVm.Sandbox.Runtime;

namespace MicroVm.Cli;

/// <summary>The flags before the command, as runc has them.</summary>
internal static class GlobalFlags
{
    private const string DefaultRoot = "/run/microvm";

    /// <summary>All of them.</summary>
    internal static Flag[] All =>
    [
        new("root", "DIR", $"root directory for storage of container state (default: {DefaultRoot})"),
        new("log", "FILE", "file to append the log to (default: standard error)"),
        new("log-format", "FORMAT", "text or json (default: text)"),
        new("debug", null, "log more"),
        new("systemd-cgroup", null, "linux.cgroupsPath has the form slice:prefix:name"),
        new("rootless", "VALUE", "accepted for callers of runc: true, false or auto; has no effect"),
        new("criu", "FILE", "accepted for callers of runc; has no effect"),
        new("config", "FILE", $"configuration file (default: {RuntimeConfiguration.DefaultPath}, where it exists)"),
        new("vm-memory", "MIB", "guest memory in MiB of containers without a memory limit"),
        new("vcpus", "N", "number of vCPUs of containers without a CPU quota"),
        new("max-vcpus", "N", "number of vCPUs that a VM may have while it runs, when limits of its containers ask for them"),
        new("cpu-template", "NAME", "what CPUID shows of the processor: host, x86-64-v2, x86-64-v3 or x86-64-v4"),
        new("kernel", "FILE", "guest kernel, vmlinux or bzImage"),
        new("allow-annotations", "NAME,...", "annotations of bundles that may size and shape the VM; * for all; may be repeated (default: none)"),
        new("private-images", null, "give each VM copies of its own of guest kernel and agent: mutually hostile tenants share no page"),
        new("template", null, "start VMs from a template where one fits (microvm template create)"),
        new("no-template", null, "boot every VM, whatever the configuration file says"),
        new("version, v", null, "print the version"),
        new("help, h", null, "show help"),
    ];

    /// <summary>For the runtime.</summary>
    internal static RuntimeOptions Options(FlagValues values) => new()
    {
        Root = values.Text("root") ?? DefaultRoot,
        LogFile = values.Text("log"),
        LogJson = values.Text("log-format") == "json",
        Debug = values.On("debug"),
        SystemdCgroup = values.On("systemd-cgroup"),
    };

    /// <summary>The configuration file's values, overruled by the global flags.</summary>
    /// <exception cref="SandboxException">The file or a flag is malformed.</exception>
    internal static RuntimeConfiguration Configuration(FlagValues values)
    {
        RuntimeConfiguration file = RuntimeConfiguration.Load(values.Text("config"));
        return file with
        {
            MemoryMiB = values.Number("vm-memory") ?? file.MemoryMiB,
            Vcpus = values.Number("vcpus") ?? file.Vcpus,
            MaxVcpus = values.Number("max-vcpus") ?? file.MaxVcpus,
            CpuTemplate = values.Text("cpu-template") ?? file.CpuTemplate,
            Kernel = values.Text("kernel") ?? file.Kernel,
            PrivateImages = values.Has("private-images") ? values.On("private-images") : file.PrivateImages,
            Template = UsesTemplates(values) ?? file.Template,
            AllowedAnnotations = values.Has("allow-annotations")
                ? [.. values.All("allow-annotations").SelectMany(v => v.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))]
                : file.AllowedAnnotations,
        };
    }

    private static bool? UsesTemplates(FlagValues values) =>
        !values.On("no-template") ? values.Has("template") ? values.On("template") : null
        : values.On("template") ? throw new SandboxException("--template and --no-template exclude each other")
        : false;

    /// <summary>Opens the log that the flags ask for.</summary>
    /// <exception cref="SandboxException">The format is unknown, or the file cannot be opened.</exception>
    internal static RuntimeLog OpenLog(FlagValues values)
    {
        string format = values.Text("log-format") ?? "text";
        if (format is not ("text" or "json"))
        {
            throw new SandboxException($"invalid log-format: {format}");
        }

        try
        {
            return RuntimeLog.Open(values.Text("log"), format == "json", values.On("debug"));
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"open {values.Text("log")}: {e.Reason}", e);
        }
    }
}
