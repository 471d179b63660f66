using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.HostCgroups;

/// <summary>
/// Repeats on the host what happened in the guest: a kill for want of memory. Callers learn of it from the container's cgroup
/// (memory.oom_control in version 1, memory.events in version 2), where the guest's kernel cannot tell it. So, once the VM is gone,
/// the limit is brought down to what is in use, and a process of ours takes more, until the host's kernel kills it.
/// It acts for a container without a memory limit of its own, too: its cgroup has the VM's size and an overhead as its limit
/// (<see cref="HostLimits.ApplyAtCreation"/>), and what ran out in the guest was the VM's memory.
/// </summary>
public static unsafe class OutOfMemoryVictim
{
    /// <summary>The hidden command with which the executable starts itself as the victim.</summary>
    public const string Verb = "out-of-memory";

    // The victim shall be the largest by far: oom_score_adj counts in parts of the limit (proc(5)).
    private const int Page = 4096, Room = 32 << 20, Excess = 16 << 20;
    private const string FirstToGo = "1000";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    /// <summary>Has the kernel kill for want of memory in a cgroup that has a limit; nothing happens in one without.</summary>
    /// <returns>Whether it did.</returns>
    /// <exception cref="SandboxException">The limit cannot be changed.</exception>
    /// <exception cref="LinuxException">The victim cannot be started.</exception>
    internal static bool Offer(HostCgroup cgroup)
    {
        if (cgroup.TryRead("memory", "memory.limit_in_bytes", "memory.max") is not { } limit || !long.TryParse(limit, out long bytes) || bytes > long.MaxValue / 2)
        {
            return false;
        }

        (SafeFd read, SafeFd write) = Pipe.Create();
        (SafeFd readyRead, SafeFd readyWrite) = Pipe.Create();
        using SafeFd itsGo = read, go = write, ready = readyRead, itsReady = readyWrite;
        using SpawnedProcess victim = Start(itsGo, itsReady, bytes + Excess);
        try
        {
            itsReady.Dispose();
            _ = HostFile.ReadToEnd(ready, Page, "victim");

            // Neither cache nor swap shall make room.
            Try(cgroup, "memory.force_empty", "", "0");
            Try(cgroup, "memory.swappiness", "memory.swap.max", "0");
            long used = long.TryParse(cgroup.TryRead("memory", "memory.usage_in_bytes", "memory.current"), out long u) ? u : bytes;
            SetLimit(cgroup, Math.Min(bytes, (used + Room) / Page * Page));
            go.Dispose();
            return victim.Wait(Patience) is { Signal: Libc.SIGKILL };
        }
        finally
        {
            _ = victim.Kill();
            SetLimit(cgroup, bytes);
        }
    }

    /// <summary>The victim: takes as much memory as its argument says, as far as it may.</summary>
    /// <param name="arguments">The bytes.</param>
    public static int Run(IReadOnlyList<string> arguments)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        if (arguments is not [var size] || !ulong.TryParse(size, NumberStyles.None, CultureInfo.InvariantCulture, out ulong bytes))
        {
            return 1;
        }

        File.WriteAllText("/proc/self/oom_score_adj", FirstToGo);
        _ = Libc.close(1);
        byte none;
        _ = Libc.read(0, &none, 1);
        byte* memory = (byte*)Libc.mmap(null, (nuint)bytes, Libc.PROT_READ | Libc.PROT_WRITE, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS | Libc.MAP_NORESERVE, -1, 0);
        if ((nint)memory != -1)
        {
            for (ulong at = 0; at < bytes; at += Page)
            {
                Volatile.Write(ref memory[at], 1);
            }
        }

        return 0;
    }

    private static SpawnedProcess Start(SafeFd go, SafeFd ready, long bytes)
    {
        using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_WRONLY | Libc.O_CLOEXEC, 0), "open", "/dev/null");
        Spawn spawn = new()
        {
            File = Environment.ProcessPath!,
            Arguments = ["microvm", Verb, bytes.ToString(CultureInfo.InvariantCulture)],
        };
        spawn.Add(go);
        spawn.Add(ready);
        spawn.Add(nothing);
        return spawn.Start();
    }

    private static void SetLimit(HostCgroup cgroup, long bytes)
    {
        string text = bytes.ToString(CultureInfo.InvariantCulture);
        _ = cgroup.TryWrite("memory", "memory.limit_in_bytes", text, "memory.max", text);
    }

    private static void Try(HostCgroup cgroup, string v1File, string v2File, string value)
    {
        try
        {
            _ = cgroup.TryWrite("memory", v1File, value, v2File, value);
        }
        catch (SandboxException)
        {
            // The kernel then has to make room first.
        }
    }
}
