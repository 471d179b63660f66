using System.Globalization;
using System.Text;
using MicroVm.Linux;

namespace MicroVm.Sandbox.State;

/// <summary>A process told from a later one with the same number: its id and its start in clock ticks since boot.</summary>
public sealed record ProcessIdentity(int Pid, ulong StartTime)
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
}
