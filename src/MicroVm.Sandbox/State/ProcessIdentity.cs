using System.Globalization;
using System.Text;
using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.State;

/// <summary>A process told from a later one with the same number: its id and its start in clock ticks since boot.</summary>
public sealed record ProcessIdentity(int Pid, ulong StartTime) : IHandJson<ProcessIdentity>
{
    /// <summary>This process.</summary>
    public static ProcessIdentity Current => Of(Environment.ProcessId)
        ?? throw new SandboxException("/proc/self/stat cannot be read: /proc must be mounted");

    /// <summary>A running process; null when there is none of that id, or it is a zombie.</summary>
    public static ProcessIdentity? Of(int pid)
    {
        try
        {
            string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/stat");
            string stat = Encoding.UTF8.GetString(HostFile.ReadAllBytes(path, 4096));

            // The name, field 2, is in parentheses and may hold anything; state is field 3 and the start field 22.
            string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return fields[0] is "Z" or "X" or "x" ? null : new ProcessIdentity(pid, ulong.Parse(fields[19], CultureInfo.InvariantCulture));
        }
        catch (LinuxException)
        {
            return null;
        }
    }

    /// <summary>Whether the process still runs.</summary>
    public bool IsAlive() => Of(Pid) == this;

    /// <summary>Sends a signal, to this process and to no later one of its number.</summary>
    public void Signal(int signal)
    {
        using SafeFd? fd = Open();
        if (fd is not null)
        {
            _ = Libc.syscall((nint)Libc.SYS_pidfd_send_signal, fd.Value, signal, 0, 0, 0, 0);
        }
    }

    /// <summary>Waits until the process has ended; false when it has not after <paramref name="timeout"/>.</summary>
    public unsafe bool WaitForEnd(TimeSpan timeout)
    {
        using SafeFd? fd = Open();
        if (fd is null)
        {
            return true;
        }

        Libc.pollfd pfd = new() { fd = fd.Value, events = Libc.POLLIN };
        long deadline = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        int ready;
        do
        {
            ready = Libc.poll(&pfd, 1, (int)Math.Max(0, deadline - Environment.TickCount64));
        }
        while (Check.Retry(ready));
        return ready > 0;
    }

    void IHandJson<ProcessIdentity>.WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteNumber("pid"u8, Pid);
        writer.WriteNumber("startTime"u8, StartTime);
    }

    static ProcessIdentity IHandJson<ProcessIdentity>.ReadMembers(ref Utf8JsonReader reader)
    {
        int pid = 0;
        ulong startTime = 0;
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "pid"u8))
            {
                pid = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "startTime"u8))
            {
                startTime = reader.GetUInt64();
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        return new ProcessIdentity(pid, startTime);
    }

    /// <summary>A pidfd, opened before it is known whose: the process that is alive afterwards is the one held.</summary>
    private SafeFd? Open()
    {
        SafeFd fd = new((int)Libc.syscall((nint)Libc.SYS_pidfd_open, Pid, 0, 0, 0, 0, 0));
        if (!fd.IsInvalid && IsAlive())
        {
            return fd;
        }

        fd.Dispose();
        return null;
    }
}
