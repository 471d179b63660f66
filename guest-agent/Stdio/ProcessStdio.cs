using System.Text;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Stdio;

/// <summary>
/// A process's standard streams: the child's ends until it has them, the agent's ends, and the relays to the host's
/// connections. Owns all of them. Used on the loop's thread except for <see cref="OpenTerminal"/>, <see cref="CloseChildEnds"/>,
/// <see cref="Executed"/> and <see cref="FailExec"/>, which the setup thread calls while the loop leaves the object alone.
/// </summary>
public sealed unsafe class ProcessStdio : IDisposable
{
    private const int PipeSize = 256 << 10;
    private readonly SafeFd?[] _streams = new SafeFd?[3];
    private readonly SafeFd?[] _childEnds = new SafeFd?[3];
    private readonly SafeFd?[] _agentEnds = new SafeFd?[3];
    private readonly List<Relay> _relays = [];
    private readonly bool _terminal;
    private bool _ended;
    private SafeFd? _master;
    private SafeFd? _errorEnd;
    private Relay? _input;

    /// <summary>Takes the host's connections and makes the pipes.</summary>
    /// <exception cref="SetupException">A port names no connection, or no descriptor is free.</exception>
    public ProcessStdio(StreamTable streams, StdioPorts? ports, bool terminal)
    {
        ArgumentNullException.ThrowIfNull(streams);
        _terminal = terminal;
        ports ??= new StdioPorts();
        try
        {
            _streams[0] = Take(streams, ports.Stdin, "stdin");
            _streams[1] = terminal && ports.Stdout != 0 && ports.Stdout == ports.Stdin
                ? _streams[0]!.Duplicate()
                : Take(streams, ports.Stdout, "stdout");
            if (!terminal)
            {
                bool one = ports.Stderr != 0 && ports.Stderr == ports.Stdout;
                _streams[2] = one ? null : Take(streams, ports.Stderr, "stderr");
                for (int i = 0; i < (one ? 2 : 3); i++)
                {
                    MakeChildEnd(i);
                }

                if (one)
                {
                    // The caller has one file for both: one pipe keeps their order.
                    _childEnds[2] = _childEnds[1]!.Duplicate();
                }
            }
        }
        catch (LinuxException e)
        {
            Dispose();
            throw new SetupException("setting up stdio", e);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The descriptor that the child makes its own <paramref name="index"/>; with a terminal, the slave.</summary>
    public int ChildEnd(int index) => _childEnds[_terminal ? 0 : index]?.Value ?? -1;

    /// <summary>The terminal's slave while the child's ends are open.</summary>
    public SafeFd? Slave => _terminal ? _childEnds[0] : null;

    /// <summary>Opens a terminal in the devpts at /dev/pts of <paramref name="root"/>, in the root's mount namespace.</summary>
    /// <exception cref="SetupException">There is no devpts, or the kernel refused.</exception>
    public void OpenTerminal(RootDirectory root, Process process, uint owner)
    {
        ArgumentNullException.ThrowIfNull(root);
        ArgumentNullException.ThrowIfNull(process);
        try
        {
            const int flags = Libc.O_RDWR | Libc.O_NOCTTY | Libc.O_CLOEXEC;
            _master = root.TryOpen("/dev/pts/ptmx", flags | Libc.O_NONBLOCK)
                ?? throw new SetupException("a terminal needs a devpts mount at /dev/pts");
            int unlocked = 0;
            Check.Result(Libc.ioctl(_master.Value, Libc.TIOCSPTLCK, &unlocked), "ioctl(TIOCSPTLCK)");
            _childEnds[0] = SafeFd.From(Libc.ioctl(_master.Value, Libc.TIOCGPTPEER, (nint)flags), "ioctl(TIOCGPTPEER)");
            if (process.ConsoleWidth != 0 && process.ConsoleHeight != 0)
            {
                Resize(process.ConsoleWidth, process.ConsoleHeight);
            }

            if (process.PlainNewlines)
            {
                SetNewlines(plain: true);
            }

            if (owner != 0)
            {
                _ = Libc.fchown(_childEnds[0]!.Value, owner, uint.MaxValue);
            }
        }
        catch (LinuxException e)
        {
            throw new SetupException("opening a terminal", e);
        }
    }

    /// <summary>Gives pipes to the user that the process will run as, who may then reopen /dev/stdout.</summary>
    public void ChangeOwner(uint owner)
    {
        for (int i = 0; i < 3 && owner != 0 && !_terminal; i++)
        {
            if (_agentEnds[i] is not null)
            {
                _ = Libc.fchown(_childEnds[i]!.Value, owner, uint.MaxValue);
            }
        }
    }

    /// <summary>
    /// Closes the child's ends, once the child has its own copies. Standard error stays open until <see cref="Executed"/> or
    /// <see cref="FailExec"/>.
    /// </summary>
    public void CloseChildEnds()
    {
        _errorEnd ??= Give(_childEnds, _terminal ? 0 : 2);
        for (int i = 0; i < 3; i++)
        {
            _childEnds[i]?.Dispose();
            _childEnds[i] = null;
        }
    }

    /// <summary>Closes the agent's copy of the process's standard error: the process has exec'd.</summary>
    public void Executed()
    {
        _errorEnd?.Dispose();
        _errorEnd = null;
    }

    /// <summary>Writes why execve failed to the process's standard error, as runc's init does, and closes the agent's copy.</summary>
    /// <param name="message">A sentence without a newline.</param>
    public void FailExec(string message)
    {
        if (_errorEnd is { } end)
        {
            byte[] line = Encoding.UTF8.GetBytes(message + "\n");
            fixed (byte* bytes = line)
            {
                // The stream is empty, so the write does not block; a reader that has gone loses nothing that it wants.
                _ = Libc.write(end.Value, bytes, (nuint)line.Length);
            }
        }

        Executed();
    }

    /// <summary>Starts to relay; called when the process exists.</summary>
    public void Start(EventLoop loop)
    {
        if (_terminal)
        {
            StartTerminal(loop);
            return;
        }

        if (_streams[0] is not null)
        {
            _input = new Relay(loop, Give(_streams, 0), Give(_agentEnds, 0), targetIsSocket: false);
        }

        for (int i = 1; i < 3; i++)
        {
            if (_streams[i] is not null)
            {
                _relays.Add(new Relay(loop, Give(_agentEnds, i), Give(_streams, i), targetIsSocket: true));
            }
        }
    }

    /// <summary>Takes no more input and no more sizes: the process has ended. Output goes on until its end.</summary>
    public void CloseInput()
    {
        _ended = true;
        Executed();
        _input?.Dispose();
        _master?.Dispose();
        _master = null;
        _relays.ForEach(r => r.Resume());
    }

    /// <summary>Closes the terminal's master: the kernel hangs up the session of the process. Without a terminal nothing happens.</summary>
    public void HangUp()
    {
        if (_terminal)
        {
            CloseInput();
            _relays.ForEach(r => r.Dispose());
        }
    }

    /// <summary>Sets the terminal's size in characters.</summary>
    /// <exception cref="SetupException">There is no terminal.</exception>
    /// <exception cref="LinuxException">The terminal is gone.</exception>
    public void Resize(uint width, uint height)
    {
        if (_master is null)
        {
            throw new SetupException("the process has no terminal");
        }

        ushort* size = stackalloc ushort[4];
        size[0] = (ushort)Math.Min(height, ushort.MaxValue);
        size[1] = (ushort)Math.Min(width, ushort.MaxValue);
        size[2] = size[3] = 0;
        Check.Result(Libc.ioctl(_master.Value, Libc.TIOCSWINSZ, size), "ioctl(TIOCSWINSZ)");
    }

    /// <summary>Whether the terminal leaves \n as it is (ONLCR off), or makes \r\n of it.</summary>
    /// <exception cref="SetupException">There is no terminal.</exception>
    /// <exception cref="LinuxException">The terminal is gone.</exception>
    public void SetNewlines(bool plain)
    {
        if (_master is null)
        {
            throw new SetupException("the process has no terminal");
        }

        Libc.termios settings;
        Check.Result(Libc.tcgetattr(_master.Value, &settings), "tcgetattr");
        settings.c_oflag = plain ? settings.c_oflag & ~Libc.ONLCR : settings.c_oflag | Libc.ONLCR;
        Check.Result(Libc.tcsetattr(_master.Value, Libc.TCSANOW, &settings), "tcsetattr");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        CloseChildEnds();
        Executed();
        _input?.Dispose();
        foreach (Relay relay in _relays)
        {
            relay.Dispose();
        }

        for (int i = 0; i < 3; i++)
        {
            _streams[i]?.Dispose();
            _agentEnds[i]?.Dispose();
        }

        _master?.Dispose();
    }

    private static SafeFd? Take(StreamTable streams, uint port, string name) => port == 0
        ? null
        : streams.Take(port) ?? throw new SetupException($"{name}: no stream was connected from host port {port}");

    private static SafeFd Give(SafeFd?[] from, int index)
    {
        SafeFd fd = from[index]!;
        from[index] = null;
        return fd;
    }

    private void StartTerminal(EventLoop loop)
    {
        if (_master is null)
        {
            return;
        }

        // One watch for each direction, so each has a descriptor of its own. Output that nobody wants is read all the same:
        // a full terminal would stop the process.
        SafeFd output = _streams[1] is not null
            ? Give(_streams, 1)
            : SafeFd.From(Libc.open("/dev/null", Libc.O_WRONLY | Libc.O_CLOEXEC, 0), "open", "/dev/null");
        // While the process lives, who closed its terminal may open it again, as systemd does with /dev/console.
        _relays.Add(new Relay(loop, _master.Duplicate(), output, targetIsSocket: true, () => !_ended));
        if (_streams[0] is not null)
        {
            _input = new Relay(loop, Give(_streams, 0), _master.Duplicate(), targetIsSocket: false);
        }
    }

    private void MakeChildEnd(int index)
    {
        if (_streams[index] is null)
        {
            _childEnds[index] = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", "/dev/null");
            return;
        }

        int* fds = stackalloc int[2];
        Check.Result(Libc.pipe2(fds, Libc.O_CLOEXEC), "pipe2");
        (SafeFd read, SafeFd write) = (new SafeFd(fds[0]), new SafeFd(fds[1]));
        (_childEnds[index], _agentEnds[index]) = index == 0 ? (read, write) : (write, read);
        // Only the agent's end: a process may expect blocking stdio.
        Check.Result(Libc.fcntl(_agentEnds[index]!.Value, Libc.F_SETFL, Libc.O_NONBLOCK), "fcntl(F_SETFL)");
        if (index < 2)
        {
            // Fewer wake-ups for a stream that moves much; a kernel that refuses leaves the usual 64 KiB.
            _ = Libc.fcntl(write.Value, Libc.F_SETPIPE_SZ, PipeSize);
        }
    }
}
