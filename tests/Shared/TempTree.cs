using MicroVm.Linux.Native;

namespace MicroVm.Tests.Shared;

/// <summary>A directory of its own for a test, removed at its end.</summary>
internal sealed class TempTree : IDisposable
{
    public TempTree() => Directory.CreateDirectory(Path.Combine(Base, "share"));

    /// <summary>What is shared with the guest.</summary>
    public string Share => Path.Combine(Base, "share");

    /// <summary>Its parent, which the guest must not reach.</summary>
    public string Base { get; } = Directory.CreateTempSubdirectory("microvm-fs-").FullName;

    public static bool IsRoot => Libc.geteuid() == 0;

    public string At(string path) => Path.Combine(Share, path);

    public void Write(string path, string text) => File.WriteAllText(At(path), text);

    public string Read(string path) => File.ReadAllText(At(path));

    public static unsafe Libc.statx_t Stat(string path)
    {
        Libc.statx_t stat;
        fixed (byte* p = System.Text.Encoding.UTF8.GetBytes(path + '\0'))
        {
            if (Libc.statx(Libc.AT_FDCWD, p, Libc.AT_SYMLINK_NOFOLLOW, Libc.STATX_BASIC_STATS, &stat) != 0)
            {
                Linux.Check.Throw("statx", path);
            }
        }

        return stat;
    }

    // Not Directory.Delete: guests make names that are no Unicode.
    public void Dispose()
    {
        using System.Diagnostics.Process rm = System.Diagnostics.Process.Start("rm", ["-rf", Base]);
        rm.WaitForExit();
        Assert.Equal(0, rm.ExitCode);
    }
}
