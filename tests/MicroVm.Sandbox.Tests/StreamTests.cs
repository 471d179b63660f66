using System.Security.Cryptography;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Tests;

/// <summary>Copying of streams: everything arrives, ends are passed on in both directions.</summary>
public sealed unsafe class StreamTests
{
    private static readonly TimeSpan Quiet = TimeSpan.FromSeconds(30);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void EverythingFromTheGuestArrives(bool nonBlocking)
    {
        byte[] data = RandomNumberGenerator.GetBytes(3 << 20);
        (SafeFd vmm, SafeFd guest) = UnixSocket.Pair();
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd a = vmm, b = guest, c = read, d = write;
        if (nonBlocking)
        {
            Check.Result(Libc.fcntl(write.Value, Libc.F_SETFL, Libc.O_NONBLOCK), "fcntl");
        }

        using StreamPump pump = StreamPump.FromGuest(guest, write, "test");
        Task<byte[]> received = Task.Run(() => ReadAll(read));
        Task.Run(() =>
        {
            HostFile.WriteAll(vmm, data, "test");
            _ = Libc.shutdown(vmm.Value, Libc.SHUT_WR);
        });
        Assert.True(pump.Drain(Quiet));
        write.Dispose();
        Assert.Equal(SHA256.HashData(data), SHA256.HashData(received.Result));
    }

    [Fact]
    public void AnEndedProcessWhoseOutputNeverEndsIsGivenUp()
    {
        (SafeFd vmm, SafeFd guest) = UnixSocket.Pair();
        using SafeFd a = vmm, b = guest, nothing = new(Libc.open("/dev/null", Libc.O_WRONLY, 0));
        using StreamPump pump = StreamPump.FromGuest(guest, nothing, "test");
        Task flood = Task.Run(() =>
        {
            try
            {
                while (true)
                {
                    HostFile.WriteAll(vmm, new byte[1 << 16], "test");
                }
            }
            catch (LinuxException)
            {
                // The pump closed the stream.
            }
        });
        Assert.False(pump.Drain(Quiet));
        pump.Dispose();
        guest.Dispose();
        flood.Wait();
    }

    [Fact]
    public void EverythingFromTheHostArrivesAndItsEndToo()
    {
        byte[] data = RandomNumberGenerator.GetBytes(1 << 20);
        (SafeFd vmm, SafeFd guest) = UnixSocket.Pair();
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd a = vmm, b = guest, c = read, d = write;
        using StreamPump pump = StreamPump.ToGuest(read, guest);
        Task.Run(() =>
        {
            HostFile.WriteAll(write, data, "test");
            write.Dispose();
        });
        Assert.Equal(SHA256.HashData(data), SHA256.HashData(ReadAll(vmm)));
    }

    [Fact]
    public void FilesCanBeInput()
    {
        (SafeFd vmm, SafeFd guest) = UnixSocket.Pair();
        using SafeFd a = vmm, b = guest, file = MemoryFile.Create("input", "from a file"u8);
        using StreamPump pump = StreamPump.ToGuest(file, guest);
        Assert.Equal("from a file"u8.ToArray(), ReadAll(vmm));
    }

    [Fact]
    public void ReaderThatWentAwayClosesTheGuestsStream()
    {
        (SafeFd vmm, SafeFd guest) = UnixSocket.Pair();
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd a = vmm, b = guest, c = read, d = write;
        read.Dispose();
        using StreamPump pump = StreamPump.FromGuest(guest, write, "test");
        HostFile.WriteAll(vmm, "unwanted"u8, "test");
        Assert.True(pump.Drain(Quiet));
        LinuxException e = Assert.Throws<LinuxException>(() => HostFile.WriteAll(vmm, "more"u8, "test"));
        Assert.Equal(Errno.EPIPE, e.Errno);
    }

    [Fact]
    public void GuestThatClosedTakesNoMoreInput()
    {
        (SafeFd vmm, SafeFd guest) = UnixSocket.Pair();
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd a = vmm, b = guest, c = read, d = write;
        using StreamPump pump = StreamPump.ToGuest(read, guest);
        vmm.Dispose();
        Assert.True(pump.Drain(Quiet));
        HostFile.WriteAll(write, "kept"u8, "test");
        byte* buffer = stackalloc byte[8];
        Assert.Equal(4, Libc.read(read.Value, buffer, 8));
    }

    [Fact]
    public void SilentStreamIsGivenUpAfterTheQuietTime()
    {
        (SafeFd vmm, SafeFd guest) = UnixSocket.Pair();
        using SafeFd a = vmm, b = guest, nothing = MemoryFile.Create("out", []);
        using StreamPump pump = StreamPump.FromGuest(guest, nothing, "test");
        Assert.False(pump.Drain(TimeSpan.FromMilliseconds(100)));
    }

    [Fact]
    public void EndOfTheConsoleIsKept()
    {
        using ConsoleTail console = ConsoleTail.Open(null);
        console.Begin();
        HostFile.WriteAll(console.Write, System.Text.Encoding.ASCII.GetBytes(new string('x', 100_000) + "\r\nfirst\u001b[0m\r\n\r\nlast\r\n"), "console");
        SpinWait.SpinUntil(() => console.LastLines(1) == "last", TimeSpan.FromSeconds(30));
        Assert.Equal("first[0m\nlast", console.LastLines(2));
    }

    [Fact]
    public void ConsoleFileIsAppendedToAndItsNewPartIsTheTail()
    {
        using TempFolder folder = new();
        File.WriteAllText(folder["log"], "old\n");
        using ConsoleTail console = ConsoleTail.Open(folder["log"]);
        HostFile.WriteAll(console.Write, "panic\n"u8, "console");
        Assert.Equal("panic", console.LastLines(5));
        Assert.Equal("old\npanic\n", File.ReadAllText(folder["log"]));
    }

    [Fact]
    public void SignalsAreHandedOnInOrderAndTheFirstEndsAnAttempt()
    {
        int aborted = 0;
        List<int> delivered = [];
        using SignalRelay relay = new(() => Interlocked.Increment(ref aborted));
        _ = Libc.kill(Environment.ProcessId, Libc.SIGUSR1);
        Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref aborted) == 1, TimeSpan.FromSeconds(30)));
        Assert.Equal(Libc.SIGUSR1, relay.AbortedBy);
        relay.Start(signal =>
        {
            lock (delivered)
            {
                delivered.Add(signal);
            }
        });
        foreach (int signal in (int[])[Libc.SIGUSR2, Libc.SIGHUP, 40])
        {
            _ = Libc.kill(Environment.ProcessId, signal);
            Assert.True(SpinWait.SpinUntil(() => { lock (delivered) { return delivered.Contains(signal); } }, TimeSpan.FromSeconds(30)), $"signal {signal}");
        }

        Assert.Equal([Libc.SIGUSR2, Libc.SIGHUP, 40], delivered);
    }

    private static byte[] ReadAll(SafeFd fd)
    {
        using MemoryStream all = new();
        byte[] buffer = new byte[65536];
        while (true)
        {
            nint n;
            fixed (byte* p = buffer)
            {
                n = Libc.read(fd.Value, p, (nuint)buffer.Length);
            }

            if (Check.Result(n, "read") == 0)
            {
                return all.ToArray();
            }

            all.Write(buffer, 0, (int)n);
        }
    }
}
