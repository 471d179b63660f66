using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// A pseudo-terminal of the host whose master the caller gets by a console socket. The slave stays here, raw: the line
/// discipline that works is the guest's. Of the caller's settings ONLCR counts, which callers turn off and on (runc, conmon).
/// </summary>
internal sealed unsafe class HostConsole : IDisposable
{
    private HostConsole(SafeFd slave) => Slave = slave;

    /// <summary>Owned by this object.</summary>
    internal SafeFd Slave { get; }

    /// <summary>Makes the pair and sends the master, with the slave's name, to the listener at <paramref name="socketPath"/>.</summary>
    /// <exception cref="SandboxException">No pseudo-terminal is free, or nobody listens.</exception>
    internal static HostConsole Create(string socketPath, int width, int height)
    {
        try
        {
            using SafeFd master = SafeFd.From(Libc.open("/dev/ptmx", Libc.O_RDWR | Libc.O_NOCTTY | Libc.O_CLOEXEC, 0), "open", "/dev/ptmx");
            int unlock = 0, number = 0;
            Check.Result(Libc.ioctl(master.Value, Libc.TIOCSPTLCK, &unlock), "ioctl(TIOCSPTLCK)");
            Check.Result(Libc.ioctl(master.Value, Libc.TIOCGPTN, &number), "ioctl(TIOCGPTN)");
            SafeFd slave = SafeFd.From(
                Libc.ioctl(master.Value, Libc.TIOCGPTPEER, Libc.O_RDWR | Libc.O_NOCTTY | Libc.O_CLOEXEC), "ioctl(TIOCGPTPEER)");
            try
            {
                Prepare(slave, width, height);
                using SafeFd socket = UnixSocket.Connect(socketPath);
                Send(socket, master, $"/dev/pts/{number}");
                return new HostConsole(slave);
            }
            catch
            {
                slave.Dispose();
                throw;
            }
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the console cannot be set up: {e.Message}", e);
        }
    }

    /// <summary>Makes it the terminal of this process's session: changes of its size are then signalled to this process.</summary>
    /// <exception cref="SandboxException">The process leads no session, or its session has a terminal.</exception>
    internal void TakeControl()
    {
        if (Libc.ioctl(Slave.Value, Libc.TIOCSCTTY, (nint)0) < 0)
        {
            throw new SandboxException($"the console cannot be made the controlling terminal: {LinuxException.Text(Check.LastErrno)}");
        }
    }

    /// <summary>Whether the caller wants \n as it is (ONLCR off).</summary>
    internal bool PlainNewlines
    {
        get
        {
            Libc.termios settings;
            return Libc.tcgetattr(Slave.Value, &settings) == 0 && (settings.c_oflag & Libc.ONLCR) == 0;
        }
    }

    /// <summary>Whether the caller, and everybody it gave the master to, has closed it.</summary>
    internal bool IsHungUp
    {
        get
        {
            Libc.pollfd poll = new() { fd = Slave.Value };
            return Libc.poll(&poll, 1, 0) > 0 && (poll.revents & Libc.POLLHUP) != 0;
        }
    }

    public void Dispose() => Slave.Dispose();

    private static void Prepare(SafeFd slave, int width, int height)
    {
        Libc.termios settings;
        Check.Result(Libc.tcgetattr(slave.Value, &settings), "tcgetattr");
        Libc.cfmakeraw(&settings);
        Check.Result(Libc.tcsetattr(slave.Value, Libc.TCSANOW, &settings), "tcsetattr");
        if (width > 0 && height > 0)
        {
            Libc.winsize size = new() { ws_col = (ushort)width, ws_row = (ushort)height };
            Check.Result(Libc.ioctl(slave.Value, Libc.TIOCSWINSZ, &size), "ioctl(TIOCSWINSZ)");
        }
    }

    private static void Send(SafeFd socket, SafeFd master, string name)
    {
        byte[] payload = Encoding.ASCII.GetBytes(name);
        byte* control = stackalloc byte[sizeof(Libc.cmsghdr) + sizeof(nuint)];
        Libc.cmsghdr* header = (Libc.cmsghdr*)control;
        header->cmsg_len = (nuint)(sizeof(Libc.cmsghdr) + sizeof(int));
        header->cmsg_level = Libc.SOL_SOCKET;
        header->cmsg_type = Libc.SCM_RIGHTS;
        *(int*)(header + 1) = master.Value;
        fixed (byte* p = payload)
        {
            Libc.iovec vector = new() { iov_base = p, iov_len = (nuint)payload.Length };
            Libc.msghdr message = new()
            {
                msg_iov = &vector,
                msg_iovlen = 1,
                msg_control = control,
                msg_controllen = (nuint)(sizeof(Libc.cmsghdr) + sizeof(nuint)),
            };
            Check.Result(Libc.sendmsg(socket.Value, &message, Libc.MSG_NOSIGNAL), "sendmsg", "console socket");
        }
    }
}
