using System.Globalization;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.State;

/// <summary>A process told from a later one with the same number: its id and its start in clock ticks since boot.</summary>
public sealed record ProcessIdentity(int Pid, ulong StartTime) : IJsonRecord
{
    // Of /proc/PID/stat (proc(5)); the fields count from 1.
    private const int MaxStat = 4096, StateField = 3, StartField = 22;

    /// <summary>The process id.</summary>
    public int Pid { get; set; } = Pid;

    /// <summary>Its start, in clock ticks since boot.</summary>
    public ulong StartTime { get; set; } = StartTime;

    /// <summary>This process.</summary>
    public static ProcessIdentity Current => Of(Environment.ProcessId)
        ?? throw new SandboxException("/proc/self/stat cannot be read: /proc must be mounted");

    /// <summary>A running process; null when there is none of that id, or it is a zombie.</summary>
    public static ProcessIdentity? Of(int pid)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/stat");
        if (HostFile.TryReadAllBytes(path, MaxStat, out _) is not { } stat)
        {
            return null;
        }

        // The name, field 2, is in parentheses and may hold anything; state is field 3.
        ReadOnlySpan<byte> fields = stat.AsSpan(stat.AsSpan().LastIndexOf((byte)')') + 2);
        if (fields[0] is (byte)'Z' or (byte)'X' or (byte)'x')
        {
            return null;
        }

        for (int field = StateField; field < StartField; field++)
        {
            fields = fields[(fields.IndexOf((byte)' ') + 1)..];
        }

        return new ProcessIdentity(pid, ulong.Parse(fields[..fields.IndexOf((byte)' ')], CultureInfo.InvariantCulture));
    }

    /// <summary>Whether the process still runs.</summary>
    public bool IsAlive() => Of(Pid) == this;

    /// <summary>Sends a signal, to this process and to no later one of its number.</summary>
    public void Signal(int signal)
    {
        using SafeFd? fd = Open();
        if (fd is not null)
        {
            _ = PidFd.Signal(fd, signal);
        }
    }

    /// <summary>Waits until the process has ended; false when it has not after <paramref name="timeout"/>.</summary>
    public bool WaitForEnd(TimeSpan timeout)
    {
        using SafeFd? fd = Open();
        if (fd is null)
        {
            return true;
        }

        return PidFd.WaitForEnd(fd, Environment.TickCount64 + (long)timeout.TotalMilliseconds);
    }

    internal static ProcessIdentity Empty() => new(0, 0);

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Pid = members.Number("pid"u8, Pid);
        StartTime = members.Number("startTime"u8, StartTime);
    }

    /// <summary>A pidfd, opened before it is known whose: the process that is alive afterwards is the one held.</summary>
    private SafeFd? Open()
    {
        SafeFd fd = new(Libc.pidfd_open(Pid, 0));
        if (!fd.IsInvalid && IsAlive())
        {
            return fd;
        }

        fd.Dispose();
        return null;
    }
}
