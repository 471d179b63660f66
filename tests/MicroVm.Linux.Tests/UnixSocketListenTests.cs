using Xunit;

namespace MicroVm.Linux.Tests;

public sealed class UnixSocketListenTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("unix-socket-").FullName;

    private string Socket => Path.Combine(_directory, "s");

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public void Socket_that_nobody_listens_on_is_replaced()
    {
        UnixSocket.Listen(Socket).Dispose();
        using SafeFd again = UnixSocket.Listen(Socket);
        using SafeFd client = UnixSocket.Connect(Socket);
        using SafeFd? server = UnixSocket.TryAccept(again, out Errno errno);
        Assert.NotNull(server);
        Assert.Equal(Errno.OK, errno);
        Assert.Null(UnixSocket.TryAccept(again, out errno));
        Assert.Equal(Errno.EAGAIN, errno);
    }

    [Fact]
    public void Socket_in_use_and_other_files_are_left_alone()
    {
        using SafeFd first = UnixSocket.Listen(Socket);
        Assert.Equal(Errno.EADDRINUSE, Assert.Throws<LinuxException>(() => UnixSocket.Listen(Socket)).Errno);
        string file = Path.Combine(_directory, "file");
        File.WriteAllText(file, "precious");
        Assert.Equal(Errno.EADDRINUSE, Assert.Throws<LinuxException>(() => UnixSocket.Listen(file)).Errno);
        Assert.Equal("precious", File.ReadAllText(file));
    }

    [Fact]
    public void Who_listens_is_found_out_without_a_connection()
    {
        byte[] path = System.Text.Encoding.UTF8.GetBytes(Socket);
        Assert.False(UnixSocket.Listens(path));
        SafeFd listener = UnixSocket.Listen(Socket);
        Assert.True(UnixSocket.Listens(path));
        Assert.True(UnixSocket.Listens(path));
        Assert.Null(UnixSocket.TryAccept(listener, out Errno errno));
        Assert.Equal(Errno.EAGAIN, errno);
        listener.Dispose();
        Assert.False(UnixSocket.Listens(path));
        File.Delete(Socket);
        File.WriteAllText(Socket, "");
        Assert.False(UnixSocket.Listens(path));
        Assert.False(UnixSocket.Listens(new byte[UnixSocket.MaxPathBytes + 1]));
    }

    [Fact]
    public void Folders_may_be_longer_than_an_address()
    {
        string folder = Path.Combine(_directory, new string('f', 100), new string('g', 100));
        Directory.CreateDirectory(folder);
        string path = Path.Combine(folder, "s");
        UnixSocket.Listen(path).Dispose();
        using SafeFd listener = UnixSocket.Listen(path);
        using SafeFd client = UnixSocket.Connect(path);
        using SafeFd? server = UnixSocket.TryAccept(listener, out _);
        Assert.NotNull(server);
        Assert.Equal([path], Directory.EnumerateFileSystemEntries(folder));
        string name = Path.Combine(_directory, new string('n', 200));
        Assert.Equal(Errno.ENAMETOOLONG, Assert.Throws<LinuxException>(() => UnixSocket.Listen(name)).Errno);
        Assert.Equal(Errno.ENOENT, Assert.Throws<LinuxException>(() => UnixSocket.Connect(Path.Combine(folder, new string('h', 50), "s"))).Errno);
    }

    [Fact]
    public void Connecting_in_vain_says_why_without_an_exception()
    {
        Assert.Null(UnixSocket.TryConnect(System.Text.Encoding.UTF8.GetBytes(Socket), out Errno errno));
        Assert.Equal(Errno.ENOENT, errno);
        Assert.Null(UnixSocket.TryConnect(new byte[UnixSocket.MaxPathBytes + 1], out errno));
        Assert.Equal(Errno.ENAMETOOLONG, errno);
    }
}
