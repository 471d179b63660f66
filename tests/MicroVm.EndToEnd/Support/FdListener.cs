using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd.Support;

/// <summary>The socket of a caller who wants a descriptor from the runtime: a console's master, a pidfd.</summary>
internal sealed unsafe class FdListener(string path) : IDisposable
{
    private readonly SafeFd _listener = UnixSocket.Listen(path);

    /// <summary>Takes one descriptor and the text beside it.</summary>
    public (SafeFd Fd, string Text) Receive()
    {
        Assert.True(IsReadable(_listener), $"nobody connected to {path}");
        using SafeFd connection = UnixSocket.Accept(_listener)!;
        Assert.True(IsReadable(connection), $"nothing came to {path}");
        List<SafeFd> fds = [];
        byte[] text = new byte[4096];
        int n = FdReceiver.Receive(connection, text, fds, out Errno errno);
        Assert.True(n > 0, $"nothing came to {path}: {errno}");
        return (Assert.Single(fds), Encoding.UTF8.GetString(text, 0, n));
    }

    public void Dispose() => _listener.Dispose();

    private static bool IsReadable(SafeFd fd)
    {
        Libc.pollfd pfd = new() { fd = fd.Value, events = Libc.POLLIN };
        return Libc.poll(&pfd, 1, (int)Installation.RunDeadline.TotalMilliseconds) > 0;
    }
}
