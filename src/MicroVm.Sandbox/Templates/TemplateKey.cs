using System.Globalization;
using System.IO.Hashing;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Templates;

/// <summary>
/// What a template was made of, and so which VMs may start from it: the files of the runtime, the VM's shape, and this boot of the
/// host, since a guest's time stamp counter does not go backwards.
/// </summary>
internal sealed unsafe class TemplateKey
{
    private const int MaxBootId = 64;
    private const int NameLength = 16;

    private TemplateKey(string text) => Text = text;

    /// <summary>A line for each of these things.</summary>
    internal string Text { get; }

    /// <summary>Name of the template's folder: half of the text's XXH3 with 128 bits, hexadecimal.</summary>
    internal string Name => Convert.ToHexStringLower(XxHash128.Hash(Encoding.UTF8.GetBytes(Text)))[..NameLength];

    /// <summary>The key of a VM's template; null where a VM of this kind always boots.</summary>
    /// <param name="files">The runtime's files.</param>
    /// <param name="shape">The VM's size.</param>
    /// <exception cref="LinuxException">A file is not there.</exception>
    internal static TemplateKey? Of(RuntimeFiles files, VmShape shape)
    {
        // What is asked for by hand is booted, and VMs that share no pages share none of a template either.
        if (files.Initramfs is not null || files.PrivateImages || files.HasOwnKernel || shape.KernelArguments.Length > 0)
        {
            return null;
        }

        return new TemplateKey(OfHost(files) + string.Create(CultureInfo.InvariantCulture,
            $"""
            memory {shape.MemoryMiB}
            growth {shape.GrowthMiB}
            vcpus {shape.Vcpus}
            max-vcpus {shape.MaxVcpus}
            cpu-template {shape.CpuTemplate}
            maps-files {shape.MapsFiles}

            """));
    }

    /// <summary>What of a template's key is another one than now; null when VMs of now may start from it.</summary>
    /// <param name="text">The key's text.</param>
    /// <param name="files">The runtime's files as they are now.</param>
    /// <exception cref="LinuxException">A file is not there.</exception>
    internal static string? Outdated(string text, RuntimeFiles files)
    {
        string[] lines = text.Split('\n');
        string[] changed = [.. OfHost(files).Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(l => !lines.Contains(l)).Select(l => l[..l.IndexOf(' ', StringComparison.Ordinal)])];
        return changed.Length == 0 ? null : $"outdated, no VM starts from it: {string.Join(", ", changed)} changed";
    }

    /// <summary>The lines that do not depend on a VM's size.</summary>
    private static string OfHost(RuntimeFiles files) => string.Create(CultureInfo.InvariantCulture,
        $"""
        vmm {Identity(files.Vmm)}
        kernel {(files.HasOnlyPvmKernel ? "none" : Identity(files.Kernel))}
        pvm-kernel {(files.PvmKernel is { } pvm ? Identity(pvm) : "none")}
        agent {Identity(files.AgentImage)}
        windows {TemplateShape.Windows}
        boot {Encoding.ASCII.GetString(HostFile.ReadAllBytes("/proc/sys/kernel/random/boot_id", MaxBootId)).Trim()}

        """);

    /// <summary>What a file is until it is written to or replaced. (Its time of change also tells of new hard links.)</summary>
    private static string Identity(string path)
    {
        using SafeFd file = SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_CLOEXEC, 0), "open", path);
        Libc.statx_t stat;
        byte empty = 0;
        Check.Result(Libc.statx(file.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &stat), "statx", path);
        return string.Create(CultureInfo.InvariantCulture,
            $"{stat.stx_dev_major}:{stat.stx_dev_minor} {stat.stx_ino} {stat.stx_size} {stat.stx_mtime.tv_sec}.{stat.stx_mtime.tv_nsec:d9}");
    }
}
