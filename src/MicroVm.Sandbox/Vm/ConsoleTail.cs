using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Vm;

/// <summary>
/// The guest's serial console: appended to a file, or read from a pipe of which the end is kept. The guest can neither
/// block the VMM with it for long nor fill the host's memory.
/// </summary>
internal sealed unsafe class ConsoleTail : IDisposable
{
    private const int Kept = 4096;
    private readonly SafeFd? _file;
    private readonly long _fileStart;
    private readonly SafeFd? _read;
    private readonly EventFd _stop = new();
    private readonly Thread? _reader;
    private readonly byte[] _ring = new byte[Kept];
    private long _total;
    private bool _begun;

    private ConsoleTail(SafeFd write, SafeFd? read, SafeFd? file)
    {
        Write = write;
        _read = read;
        _file = file;
        _fileStart = file is null ? 0 : Libc.lseek(file.Value, 0, Libc.SEEK_END);
        if (read is not null)
        {
            _reader = new Thread(Pump, 128 << 10) { IsBackground = true, Name = "console" };
        }
    }

    /// <summary>What the VMM writes to; owned by this object.</summary>
    internal SafeFd Write { get; }

    /// <summary>Opens the console.</summary>
    /// <param name="path">File to append to; none when null.</param>
    /// <exception cref="LinuxException">The file cannot be opened.</exception>
    internal static ConsoleTail Open(string? path)
    {
        if (path is not null)
        {
            const int Flags = Libc.O_RDWR | Libc.O_CREAT | Libc.O_APPEND | Libc.O_CLOEXEC;
            SafeFd file = SafeFd.From(Libc.open(path, Flags, 0b110_000_000), "open console log", path);
            return new ConsoleTail(file, null, file);
        }

        (SafeFd read, SafeFd write) = Pipe.Create();
        return new ConsoleTail(write, read, null);
    }

    /// <summary>Reads what comes from now on; until then the pipe holds it, and the VMM waits when that is full.</summary>
    internal void Begin()
    {
        _reader?.Start();
        _begun = true;
    }

    /// <summary>The console's last lines, without control characters; empty when nothing was written.</summary>
    internal string LastLines(int count)
    {
        byte[] bytes = _file is null ? FromRing() : FromFile();
        string[] lines = [.. Encoding.UTF8.GetString(bytes)
            .Split('\n')
            .Select(l => new string([.. l.Where(c => !char.IsControl(c))]).TrimEnd())
            .Where(l => l.Length > 0)];
        return string.Join('\n', lines.TakeLast(count));
    }

    public void Dispose()
    {
        if (_begun)
        {
            _stop.Signal();
            _reader?.Join();
        }

        Write.Dispose();
        _read?.Dispose();
        _stop.Dispose();
    }

    private byte[] FromRing()
    {
        lock (_ring)
        {
            int length = (int)Math.Min(_total, Kept);
            byte[] bytes = new byte[length];
            for (int i = 0; i < length; i++)
            {
                bytes[i] = _ring[(_total - length + i) % Kept];
            }

            return bytes;
        }
    }

    private byte[] FromFile()
    {
        long end = Libc.lseek(_file!.Value, 0, Libc.SEEK_END);
        long start = Math.Max(_fileStart, end - Kept);
        byte[] bytes = new byte[Math.Max(0, end - start)];
        fixed (byte* p = bytes)
        {
            nint n = Libc.pread(_file.Value, p, (nuint)bytes.Length, start);
            return bytes[..(int)Math.Max(0, n)];
        }
    }

    private void Pump()
    {
        GuestThread.Begin();
        byte* buffer = stackalloc byte[1024];
        Libc.pollfd* fds = stackalloc Libc.pollfd[2];
        fds[0] = new Libc.pollfd { fd = _read!.Value, events = Libc.POLLIN };
        fds[1] = new Libc.pollfd { fd = _stop.Fd.Value, events = Libc.POLLIN };
        while (true)
        {
            _ = Libc.poll(fds, 2, -1);
            if (fds[0].revents == 0 && fds[1].revents != 0)
            {
                return;
            }

            nint n = fds[0].revents == 0 ? -1 : Libc.read(fds[0].fd, buffer, 1024);
            if (n == 0)
            {
                return;
            }

            lock (_ring)
            {
                for (int i = 0; i < n; i++)
                {
                    _ring[_total++ % Kept] = buffer[i];
                }
            }
        }
    }
}
