using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Boot;

/// <summary>How much the agent says.</summary>
public enum LogLevel
{
    /// <summary>What ends the machine.</summary>
    Error,

    /// <summary>What went wrong and was survived.</summary>
    Warn,

    /// <summary>What happens.</summary>
    Debug,
}

/// <summary>The agent's log: lines to /dev/kmsg, which reach the serial console when the kernel is not quiet.</summary>
public static unsafe class Log
{
    private static SafeFd? s_kmsg;

    /// <summary>The least important level that is written.</summary>
    public static LogLevel Level { get; set; } = LogLevel.Warn;

    /// <summary>Reports something that was survived.</summary>
    public static void Warn(string message) => Write(LogLevel.Warn, message);

    /// <summary>Reports what happens; call it only where it costs nothing when it is off.</summary>
    public static void Debug(string message) => Write(LogLevel.Debug, message);

    /// <summary>Reports what ends the machine, on the console.</summary>
    public static void Error(string message)
    {
        Write(LogLevel.Error, message);
        const int console = 2;
        WriteTo(console, $"microvm-agent: {message}\n");
    }

    private static void Write(LogLevel level, string message)
    {
        // Only as PID 1 is the kernel's log the agent's.
        if (level > Level || Libc.getpid() != 1)
        {
            return;
        }

        try
        {
            s_kmsg ??= GuestDeviceNodes.Open("/dev/kmsg", 1, 11, Libc.O_WRONLY);
            int priority = level switch { LogLevel.Error => 3, LogLevel.Warn => 4, _ => 7 };
            WriteTo(s_kmsg.Value, $"<{priority}>microvm-agent: {message.ReplaceLineEndings(" ")}\n");
        }
        catch (LinuxException)
        {
            // There is nowhere to say it.
            Level = LogLevel.Error;
        }
    }

    private static void WriteTo(int fd, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        fixed (byte* p = bytes)
        {
            _ = Libc.write(fd, p, (nuint)bytes.Length);
        }
    }
}
