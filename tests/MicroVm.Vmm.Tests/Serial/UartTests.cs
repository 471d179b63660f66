using MicroVm.Bus;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared;
using MicroVm.Vmm.Serial;

namespace MicroVm.Vmm.Tests.Serial;

public sealed unsafe class UartTests : IDisposable
{
    private readonly EventLoop _loop = new();
    private readonly FakeRouting _routing = new();
    private readonly SafeFd _reader;
    private readonly BoundedOutput _output;
    private readonly Uart16550 _uart;

    public UartTests()
    {
        int* pair = stackalloc int[2];
        Check.Result(Libc.pipe2(pair, Libc.O_CLOEXEC), "pipe2");
        _reader = new SafeFd(pair[0]);
        Check.Result(Libc.fcntl(pair[0], Libc.F_SETFL, Libc.O_NONBLOCK), "fcntl");
        _output = new BoundedOutput(new SafeFd(pair[1]), _loop, "serial");
        _uart = new Uart16550(_output, _routing);
    }

    public void Dispose()
    {
        _uart.Dispose();
        _reader.Dispose();
        _loop.Dispose();
    }

    [Fact]
    public void Output_appears_a_line_at_a_time()
    {
        Send("abc");
        Assert.Equal("", Received());
        Send("d\nef");
        Assert.Equal("abcd\n", Received());
        _output.Flush();
        Assert.Equal("ef", Received());
    }

    [Fact]
    public void A_file_is_given_a_bounded_amount_and_told_so()
    {
        string path = Path.GetTempFileName();
        using (BoundedOutput output = new(SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_APPEND, 0), "open", path), _loop, "serial"))
        {
            for (long i = 0; i < BoundedOutput.FileCapacity + 100_000; i++)
            {
                output.Write(i % 100 == 99 ? (byte)'\n' : (byte)'x');
            }

            Assert.InRange(output.Dropped, 90_000, 110_000);
        }

        Assert.InRange(new FileInfo(path).Length, BoundedOutput.FileCapacity, BoundedOutput.FileCapacity + 4096);
        Assert.EndsWith("the rest is dropped]\n", File.ReadAllText(path), StringComparison.Ordinal);
        File.Delete(path);
    }

    [Fact]
    public void A_reader_that_does_not_read_stops_nobody_and_costs_a_bounded_amount()
    {
        string line = new string('x', 99) + "\n";
        for (int i = 0; i < 4000; i++)
        {
            Send(line);
        }

        Assert.NotEqual(0, _output.Dropped);
        long expected = 400_000 - _output.Dropped;
        Assert.InRange(expected, BoundedOutput.Capacity, 65536 + BoundedOutput.Capacity);

        // The loop writes the rest as soon as there is room.
        long got = 0;
        while (got < expected)
        {
            int n = Received().Length;
            got += n;
            Assert.True(n > 0 || _loop.RunOnce(5000) > 0, $"{got} of {expected}");
        }

        Assert.Equal(expected, got);
    }

    [Fact]
    public void A_reader_that_is_gone_stops_nobody()
    {
        Libc.sigaction_t ignore = new() { sa_handler = (void*)1 };
        Check.Result(Libc.sigaction(Libc.SIGPIPE, &ignore, null), "sigaction");
        _reader.Dispose();
        Send("a\nb\n");
        Assert.Equal(4, _output.Dropped);
    }

    /// <summary>What Linux's autoconfig (drivers/tty/serial/8250/8250_port.c) asks before it calls the port a 16550A.</summary>
    [Fact]
    public void Linux_autoconfig_finds_a_16550A()
    {
        Write(1, 0);
        Assert.Equal(0, Read(1));
        Write(1, 0xff);
        Assert.Equal(0x0f, Read(1) & 0xf);
        Write(1, 0);
        Write(4, 0x1a);
        Assert.Equal(0x90, Read(6) & 0xf0);
        Write(4, 0);
        Write(3, 0xbf);
        Write(2, 0);
        Write(3, 0);
        Write(2, 1);
        Assert.Equal(3, Read(2) >> 6);
        Write(7, 0xa5);
        Assert.Equal(0xa5, Read(7));
        Assert.Equal(0x60, Read(5));
        Write(3, 0x83);
        Write(0, 1);
        Write(1, 2);
        Assert.Equal((1, 2), (Read(0), Read(1)));
        Write(3, 3);
        Assert.Equal("", Received());
    }

    [Fact]
    public void Transmitter_interrupt_comes_when_enabled_and_after_each_byte()
    {
        Write(1, 2);
        Assert.Empty(_routing.Interrupts);
        Assert.Equal(2, Read(2));
        Assert.Equal(1, Read(2));
        Write(1, 0);
        Write(4, 8);
        Write(1, 2);
        EventFd irq = _routing.Interrupts[IoPorts.SerialIrq];
        Assert.Equal(1ul, irq.Drain());
        Send("a");
        Assert.Equal(1ul, irq.Drain());
        Assert.Equal(2, Read(2));
        Write(1, 0);
        Send("b");
        Assert.Equal(0ul, irq.Drain());
    }

    [Fact]
    public void Loopback_returns_the_byte()
    {
        Write(4, 0x10);
        Write(0, 0x55);
        Assert.Equal(0x61, Read(5));
        Assert.Equal(0x55, Read(0));
        Assert.Equal(0x60, Read(5));
        _output.Flush();
        Assert.Equal("", Received());
    }

    [Fact]
    public void Wide_accesses_change_nothing()
    {
        byte[] data = [0, 0];
        _uart.Read(0, data);
        Assert.Equal([0xff, 0xff], data);
        _uart.Write(0, data);
        _output.Flush();
        Assert.Equal("", Received());
    }

    private void Send(string text)
    {
        foreach (char c in text)
        {
            Write(0, (byte)c);
        }
    }

    private byte Read(int register)
    {
        byte[] data = [0];
        _uart.Read((ulong)register, data);
        return data[0];
    }

    private void Write(int register, byte value) => _uart.Write((ulong)register, [value]);

    private string Received()
    {
        byte[] buffer = new byte[1 << 20];
        fixed (byte* p = buffer)
        {
            nint n = Libc.read(_reader.Value, p, (nuint)buffer.Length);
            return n <= 0 ? "" : System.Text.Encoding.ASCII.GetString(buffer, 0, (int)n);
        }
    }
}
