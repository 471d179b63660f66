using System.Text;
using MicroVm.Linux;

namespace MicroVm.Sandbox.Configuration;

/// <summary>
/// What the administrator decides for every container of this host: the configuration file, overruled by global flags. Sizes are those of
/// a VM whose container has no limits of its own; null leaves a value to the runtime.
/// </summary>
public sealed record RuntimeConfiguration
{
    /// <summary>The file that is read when it is there.</summary>
    public const string DefaultPath = "/etc/microvm/microvm.toml";

    // More than anyone writes by hand.
    private const int MaxBytes = 64 << 10;

    /// <summary>The file that was read; null when there was none.</summary>
    public string? Path { get; init; }

    /// <summary>Guest memory in MiB of a container without a memory limit (<c>memory</c>).</summary>
    public int? MemoryMiB { get; init; }

    /// <summary>vCPUs of a container without a CPU quota (<c>vcpus</c>).</summary>
    public int? Vcpus { get; init; }

    /// <summary>How many vCPUs a VM may have while it runs (<c>max-vcpus</c>).</summary>
    public int? MaxVcpus { get; init; }

    /// <summary>CPU template (<c>cpu-template</c>).</summary>
    public string? CpuTemplate { get; init; }

    /// <summary>Absolute path of the guest kernel (<c>kernel</c>).</summary>
    public string? Kernel { get; init; }

    /// <summary>Added to the kernel's command line (<c>kernel-args</c>).</summary>
    public string? KernelArguments { get; init; }

    /// <summary>Seconds that the guest may take for each step of a start (<c>start-timeout</c>).</summary>
    public int? StartTimeoutSeconds { get; init; }

    /// <summary>Whether VMs share no page of guest kernel and agent (<c>private-images</c>).</summary>
    public bool? PrivateImages { get; init; }

    /// <summary>Whether VMs start from a template where one fits (<c>template</c>).</summary>
    public bool? Template { get; init; }

    /// <summary>Whether a template is made in the background where none fits (<c>template = "background"</c>).</summary>
    public bool MakesTemplates { get; init; }

    /// <summary>Annotations of bundles that may size and shape the VM (<c>allowed-annotations</c>); "*" stands for all.</summary>
    public IReadOnlyList<string>? AllowedAnnotations { get; init; }

    /// <summary>Reads the file at <paramref name="path"/>; without one, <see cref="DefaultPath"/> where it exists.</summary>
    /// <exception cref="SandboxException">A file that was asked for is not there, or the file is malformed.</exception>
    public static RuntimeConfiguration Load(string? path)
    {
        if (HostFile.TryReadAllBytes(path ?? DefaultPath, MaxBytes, out Errno errno) is { } bytes)
        {
            return Parse(Encoding.UTF8.GetString(bytes), path ?? DefaultPath);
        }

        return path is null && errno is Errno.ENOENT or Errno.ENOTDIR
            ? new RuntimeConfiguration()
            : throw new SandboxException($"configuration file {path ?? DefaultPath} cannot be read: {LinuxException.Text(errno).ToLowerInvariant()}");
    }

    /// <summary>Parses a configuration file.</summary>
    /// <param name="text">Its text.</param>
    /// <param name="file">Its name, for errors.</param>
    /// <exception cref="SandboxException">It is malformed, or a key or a value is unknown.</exception>
    internal static RuntimeConfiguration Parse(string text, string file)
    {
        RuntimeConfiguration read = new() { Path = file };
        foreach ((string key, object value, int line) in TomlReader.Read(text, file))
        {
            SandboxException Wrong(string expected) => new($"{file}, line {line}: {key} must be {expected}");
            int Number() => value is long and >= 1 and <= int.MaxValue and var n ? (int)n : throw Wrong("a whole number of at least 1");
            string Text() => value as string is { Length: > 0 } t ? t : throw Wrong("a string in quotes");
            read = key switch
            {
                "memory" => read with { MemoryMiB = Number() },
                "vcpus" => read with { Vcpus = Number() },
                "max-vcpus" => read with { MaxVcpus = Number() },
                "cpu-template" => read with { CpuTemplate = Text() },
                "kernel" => read with { Kernel = Text() is ['/', ..] absolute ? absolute : throw Wrong("an absolute path") },
                "kernel-args" => read with { KernelArguments = Text() },
                "start-timeout" => read with { StartTimeoutSeconds = Number() },
                "private-images" => read with { PrivateImages = value as bool? ?? throw Wrong("true or false") },
                "template" => value switch
                {
                    bool use => read with { Template = use },
                    "background" => read with { Template = true, MakesTemplates = true },
                    _ => throw Wrong("true, false or \"background\""),
                },
                "allowed-annotations" => read with { AllowedAnnotations = value as List<string> ?? throw Wrong("an array of strings") },
                _ => throw new SandboxException(
                    $"{file}, line {line}: unknown key {key}; known are memory, vcpus, max-vcpus, cpu-template, kernel, kernel-args, start-timeout, private-images, template, allowed-annotations"),
            };
        }

        return read;
    }
}
