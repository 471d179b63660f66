using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>
/// A terminal in raw mode except for its output, which it goes on to process (\n to \r\n); put back as it was when disposed. Any thread
/// may call.
/// </summary>
public sealed unsafe class Terminal : IDisposable
{
    private readonly Lock _lock = new();
    private readonly SafeFd _fd;
    private readonly Libc.termios _saved;
    private bool _disposed;

    /// <summary>Puts the terminal behind <paramref name="fd"/> (borrowed) into raw mode.</summary>
    /// <exception cref="LinuxException">It is no terminal.</exception>
    public Terminal(SafeFd fd)
    {
        _fd = fd;
        Libc.termios saved;
        Check.Result(Libc.tcgetattr(fd.Value, &saved), "tcgetattr");
        _saved = saved;
        MakeRaw();
    }

    /// <summary>Whether <paramref name="fd"/> is a terminal.</summary>
    public static bool Is(SafeFd fd)
    {
        ArgumentNullException.ThrowIfNull(fd);
        return Libc.isatty(fd.Value) == 1;
    }

    /// <summary>Raw mode once more, after a shell may have changed it while this process was stopped.</summary>
    public void MakeRaw()
    {
        lock (_lock)
        {
            if (!_disposed)
            {
                Libc.termios raw = _saved;
                Libc.cfmakeraw(&raw);
                raw.c_oflag |= Libc.OPOST;
                Set(Libc.TCSANOW, &raw);
            }
        }
    }

    /// <summary>Puts the terminal back as it was.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            if (!_disposed)
            {
                _disposed = true;
                Libc.termios saved = _saved;
                Set(Libc.TCSADRAIN, &saved);
            }
        }
    }

    // A terminal that has gone away needs no settings.
    private void Set(int when, Libc.termios* settings)
    {
        while (Check.Retry(Libc.tcsetattr(_fd.Value, when, settings)))
        {
        }
    }
}
