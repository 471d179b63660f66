using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Ttrpc.Tests;

public class HybridVsockTests
{
    [Fact]
    public void Connect_names_the_port_and_learns_its_own()
    {
        string asked = "";
        uint hostPort = Connect("OK 1073741824\nREST", s => asked = s, out SafeFd fd);
        Assert.Equal("CONNECT 1024\n", asked);
        Assert.Equal(1073741824u, hostPort);
        byte[] rest = new byte[4];
        unsafe
        {
            fixed (byte* p = rest)
            {
                Assert.Equal(4, Libc.read(fd.Value, p, 4));
            }
        }

        Assert.Equal("REST", Encoding.ASCII.GetString(rest));
        fd.Dispose();
    }

    [Theory]
    [InlineData("")]
    [InlineData("NO\n")]
    [InlineData("OK x\n")]
    [InlineData("OK 99999999999\n")]
    [InlineData("OK 1111111111111111111111111111111111111111111\n")]
    public void Anything_but_OK_is_unavailable(string answer)
    {
        TtrpcException e = Assert.Throws<TtrpcException>(() => Connect(answer, _ => { }, out _));
        Assert.Equal(StatusCode.Unavailable, e.Code);
    }

    private static uint Connect(string answer, Action<string> asked, out SafeFd fd)
    {
        string path = Path.Combine(Path.GetTempPath(), $"hv{Guid.NewGuid():N}");
        using SafeFd listener = UnixSocket.Listen(path);
        Thread vmm = new(() => Answer(listener, answer, asked));
        vmm.Start();
        try
        {
            return Connected(path, out fd);
        }
        finally
        {
            vmm.Join();
            File.Delete(path);
        }
    }

    private static uint Connected(string path, out SafeFd fd)
    {
        fd = HybridVsock.Connect(path, 1024, TimeSpan.FromSeconds(60), out uint hostPort);
        return hostPort;
    }

    private static unsafe void Answer(SafeFd listener, string answer, Action<string> asked)
    {
        Libc.pollfd pfd = new() { fd = listener.Value, events = Libc.POLLIN };
        Assert.Equal(1, Libc.poll(&pfd, 1, 60_000));
        using SafeFd client = UnixSocket.Accept(listener)!;
        byte* buffer = stackalloc byte[64];
        pfd = new() { fd = client.Value, events = Libc.POLLIN };
        Assert.Equal(1, Libc.poll(&pfd, 1, 60_000));
        int n = (int)Libc.read(client.Value, buffer, 64);
        asked(Encoding.ASCII.GetString(buffer, n));
        byte[] bytes = Encoding.ASCII.GetBytes(answer);
        fixed (byte* p = bytes)
        {
            _ = Libc.send(client.Value, p, (nuint)bytes.Length, Libc.MSG_NOSIGNAL);
        }
    }
}
