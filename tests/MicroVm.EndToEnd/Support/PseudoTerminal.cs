using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd.Support;

/// <summary>A terminal made by the test, as a person's: a command runs on its slave, in a session of its own.</summary>
internal sealed unsafe class PseudoTerminal : IDisposable
{
    private const uint ICANON = 2, ECHO = 8;
    private readonly SafeFd _master;
    private readonly StringBuilder _bytes = new();

    public PseudoTerminal(int rows, int columns)
    {
        _master = SafeFd.From(Libc.open("/dev/ptmx", Libc.O_RDWR | Libc.O_NOCTTY | Libc.O_CLOEXEC, 0), "open", "/dev/ptmx");
        int unlock = 0, number = 0;
        Check.Result(Libc.ioctl(_master.Value, Libc.TIOCSPTLCK, &unlock), "ioctl(TIOCSPTLCK)");
        Check.Result(Libc.ioctl(_master.Value, Libc.TIOCGPTN, &number), "ioctl(TIOCGPTN)");
        Slave = string.Create(CultureInfo.InvariantCulture, $"/dev/pts/{number}");
        Resize(rows, columns);
    }

    /// <summary>A terminal that a runtime sent to a console socket.</summary>
    public PseudoTerminal(SafeFd master)
    {
        _master = master;
        Slave = "";
    }

    /// <summary>Path of the slave.</summary>
    public string Slave { get; }

    /// <summary>What was read so far, byte for byte.</summary>
    public string Bytes => _bytes.ToString();

    /// <summary>Whether the slave edits lines and echoes, as a person's terminal does.</summary>
    public bool IsCooked
    {
        get
        {
            Libc.termios settings;
            Check.Result(Libc.tcgetattr(_master.Value, &settings), "tcgetattr");
            return (settings.c_lflag & (ICANON | ECHO)) == (ICANON | ECHO);
        }
    }

    /// <summary>Starts a command whose controlling terminal this is: a session's leader gets the first one that it opens.</summary>
    public SpawnedProcess Start(params string[] command)
    {
        using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", "/dev/null");
        Spawn spawn = new()
        {
            File = "/bin/sh",
            Arguments = ["sh", "-c", "tty=$1; shift; exec \"$@\" <$tty >$tty 2>$tty", "sh", Slave, .. command],
            Environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            NewSession = true,
        };
        spawn.Add(nothing);
        spawn.Add(nothing);
        spawn.Add(nothing);
        return spawn.Start();
    }

    /// <summary>Changes the size, which is signalled to what runs on it.</summary>
    public void Resize(int rows, int columns)
    {
        Libc.winsize size = new() { ws_row = (ushort)rows, ws_col = (ushort)columns };
        Check.Result(Libc.ioctl(_master.Value, Libc.TIOCSWINSZ, &size), "ioctl(TIOCSWINSZ)");
    }

    /// <summary>Turns ONLCR off, as runc and others do on a master that they were sent.</summary>
    public void KeepNewlines()
    {
        Libc.termios settings;
        Check.Result(Libc.tcgetattr(_master.Value, &settings), "tcgetattr");
        settings.c_oflag &= ~Libc.ONLCR;
        Check.Result(Libc.tcsetattr(_master.Value, Libc.TCSANOW, &settings), "tcsetattr");
    }

    /// <summary>Types.</summary>
    public void Type(string text) => HostFile.WriteAll(_master, Encoding.UTF8.GetBytes(text), "terminal");

    /// <summary>Reads until the output, without carriage returns, holds <paramref name="text"/>.</summary>
    /// <param name="text">What is waited for.</param>
    /// <param name="patient">Nobody may have the terminal open for a while.</param>
    public string ReadUntil(string text, bool patient = false)
    {
        byte* buffer = stackalloc byte[1024];
        long deadline = Environment.TickCount64 + (long)Installation.RunDeadline.TotalMilliseconds;
        while (!Output.Contains(text, StringComparison.Ordinal))
        {
            Libc.pollfd pfd = new() { fd = _master.Value, events = Libc.POLLIN };
            Assert.True(Libc.poll(&pfd, 1, (int)Math.Max(0, deadline - Environment.TickCount64)) > 0, $"no \"{text}\" on the terminal: {Output}");
            nint n = Libc.read(_master.Value, buffer, 1024);
            if (n < 0 && patient && Environment.TickCount64 < deadline)
            {
                Thread.Sleep(20);
                continue;
            }

            Assert.True(n > 0, $"no \"{text}\" on the terminal, which was closed: {Output}");
            _bytes.Append(Encoding.UTF8.GetString(buffer, (int)n));
        }

        return Output;
    }

    public void Dispose() => _master.Dispose();

    private string Output => Bytes.Replace("\r", "", StringComparison.Ordinal);
}
