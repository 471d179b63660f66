using System.Text;
using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Ttrpc.Tests;

public sealed class ClientServerTests : IDisposable
{
    private static readonly TimeSpan Long = TimeSpan.FromSeconds(60);
    private readonly EventLoop _loop = new();
    private readonly TtrpcServer _server;
    private readonly EchoService _service = new();
    private readonly Thread _thread;

    public ClientServerTests()
    {
        _server = new TtrpcServer(_loop, _service);
        _thread = new Thread(_loop.Run) { IsBackground = true };
        _thread.Start();
    }

    public void Dispose()
    {
        _loop.Post(_server.Dispose);
        _loop.Stop();
        _thread.Join();
        _loop.Dispose();
    }

    [Fact]
    public void A_call_is_answered()
    {
        using TtrpcClient client = Client();
        Assert.Equal("hello", Echo(client, "hello"));
    }

    [Fact]
    public void Calls_overtake_each_other_on_one_connection()
    {
        using TtrpcClient client = Client();
        StringValue? late = null;
        Thread waiter = new(() => late = client.Call("test.Echo", "Later", new StringValue(), StringValue.Parser, Timeout.InfiniteTimeSpan));
        waiter.Start();
        Assert.Equal("1", Echo(client, "1"));
        Assert.True(SpinWait.SpinUntil(() => _service.Waiting is not null, Long));
        Assert.Equal("2", Echo(client, "2"));
        _loop.Post(() => _service.Waiting!.Complete(new StringValue { Value = "at last" }));
        Assert.True(waiter.Join(Long));
        Assert.Equal("at last", late!.Value);
    }

    [Theory]
    [InlineData(1u, FrameType.Request, "no response")]
    [InlineData(1u, FrameType.Data, "no response")]
    [InlineData(1u, (FrameType)200, "no response")]
    [InlineData(2u, FrameType.Response, "call 2, which was not made")]
    [InlineData(3u, FrameType.Response, "call 3, which was not made")]
    [InlineData(uint.MaxValue, FrameType.Response, "which was not made")]
    public void A_server_that_breaks_the_protocol_ends_the_connection(uint stream, FrameType type, string told)
    {
        TtrpcException e = AnsweredBy(stream, type, []);
        Assert.Equal(StatusCode.DataLoss, e.Code);
        Assert.Contains(told, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Garbage_for_an_answer_is_malformed() => Assert.Equal(StatusCode.DataLoss, AnsweredBy(1, FrameType.Response, [0x0a, 0xff]).Code);

    [Fact]
    public void AStatusWithoutAMessageIsNamed()
    {
        // Response.status (1) with a code (1) of 5, NotFound.
        TtrpcException e = AnsweredBy(1, FrameType.Response, [0x0a, 2, 0x08, 5]);
        Assert.Equal(StatusCode.NotFound, e.Code);
        Assert.Contains("the server answered NotFound, without a reason", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_status_of_a_megabyte_is_cut()
    {
        byte[] frame = TtrpcResponse.EncodeError(1, StatusCode.Internal, new string('x', 1 << 20));
        Assert.InRange(AnsweredBy(1, FrameType.Response, frame[FrameHeader.Size..]).Message.Length, 1000, 5000);
    }

    private static unsafe TtrpcException AnsweredBy(uint stream, FrameType type, byte[] payload)
    {
        (SafeFd mine, SafeFd server) = UnixSocket.Pair();
        using SafeFd its = server;
        using TtrpcClient client = new(mine);
        byte[] frame = [.. new byte[FrameHeader.Size], .. payload];
        new FrameHeader((uint)payload.Length, stream, type, 0).Write(frame);
        Task answer = Task.Run(() =>
        {
            byte request;
            _ = Libc.recv(its.Value, &request, 1, 0);
            HostFile.WriteAll(its, frame, "test");
        });
        TtrpcException e = Assert.Throws<TtrpcException>(() => Echo(client, "x"));
        answer.Wait();
        return e;
    }

    [Fact]
    public void Many_threads_on_many_connections_get_their_own_answers()
    {
        TtrpcClient[] clients = [Client(), Client(), Client()];
        List<string> wrong = [];
        Thread[] threads = [.. Enumerable.Range(0, 12).Select(t => new Thread(() =>
        {
            for (int i = 0; i < 50; i++)
            {
                string text = new((char)('a' + t), (i * 331) + 1);
                if (Echo(clients[t % 3], text) != text)
                {
                    lock (wrong)
                    {
                        wrong.Add(text);
                    }
                }
            }
        }))];
        Array.ForEach(threads, t => t.Start());
        Assert.All(threads, t => Assert.True(t.Join(Long)));
        Assert.Empty(wrong);
        Array.ForEach(clients, c => c.Dispose());
    }

    [Fact]
    public void Errors_arrive_as_their_status()
    {
        using TtrpcClient client = Client();
        Assert.Equal(StatusCode.NotFound, Fails(client, "Missing").Code);
        Assert.Equal("container x does not exist", Fails(client, "Missing").Message);
        Assert.Equal(StatusCode.Internal, Fails(client, "Throw").Code);
        Assert.Equal(StatusCode.Unimplemented, Fails(client, "Nonsense").Code);
        Assert.Equal(
            StatusCode.Unimplemented,
            Assert.Throws<TtrpcException>(() => client.Call("no.Service", "X", new Empty(), Empty.Parser, Long)).Code);
        Assert.Equal("still works", Echo(client, "still works"));
    }

    [Fact]
    public void A_late_answer_is_a_deadline_exceeded_and_the_connection_lives_on()
    {
        using TtrpcClient client = Client();
        TtrpcException e = Assert.Throws<TtrpcException>(
            () => client.Call("test.Echo", "Later", new StringValue(), StringValue.Parser, TimeSpan.FromMilliseconds(30)));
        Assert.Equal(StatusCode.DeadlineExceeded, e.Code);
        _loop.Post(() => _service.Waiting!.Complete(new StringValue { Value = "too late" }));
        Assert.Equal("next", Echo(client, "next"));
    }

    [Fact]
    public void A_server_that_goes_fails_every_call_with_unavailable()
    {
        using TtrpcClient client = Client();
        TtrpcException? seen = null;
        Thread waiter = new(() => seen = Fails(client, "Later"));
        waiter.Start();
        Assert.True(SpinWait.SpinUntil(() => _service.Waiting is not null, Long));
        _loop.Post(_server.Dispose);
        Assert.True(waiter.Join(Long));
        Assert.Equal(StatusCode.Unavailable, seen!.Code);
        Assert.Equal(StatusCode.Unavailable, Fails(client, "Echo").Code);
    }

    [Fact]
    public void A_message_larger_than_a_frame_is_refused_before_it_is_sent()
    {
        using TtrpcClient client = Client();
        TtrpcException e = Assert.Throws<TtrpcException>(() => Echo(client, new string('x', FrameHeader.MaxPayload)));
        Assert.Equal(StatusCode.ResourceExhausted, e.Code);
        Assert.Equal("ok", Echo(client, "ok"));
    }

    [Fact]
    public void A_frame_that_is_too_large_is_answered_and_skipped()
    {
        (SafeFd ours, SafeFd theirs) = Pair();
        byte[] head = new byte[FrameHeader.Size];
        new FrameHeader(FrameHeader.MaxPayload + 1, 1, FrameType.Request, 0).Write(head);
        Write(ours, head);
        Thread writer = new(() => Write(ours, new byte[FrameHeader.MaxPayload + 1]));
        writer.Start();
        TtrpcResponse response = ReadResponse(ours, out uint id);
        Assert.True(writer.Join(Long));
        Assert.Equal((1u, StatusCode.ResourceExhausted), (id, response.Code));
        Write(ours, TtrpcRequest.Encode(3, "test.Echo", "Echo", new StringValue { Value = "after" }, 0));
        Assert.Equal("after", StringValue.Parser.ParseFrom(ReadResponse(ours, out _).Payload).Value);
        ours.Dispose();
    }

    [Theory]
    [InlineData(2u, FrameType.Request)]
    [InlineData(0u, FrameType.Request)]
    [InlineData(1u, FrameType.Response)]
    [InlineData(1u, FrameType.Data)]
    public void A_stream_id_or_type_that_no_client_sends_ends_the_connection(uint id, FrameType type)
    {
        (SafeFd ours, _) = Pair();
        Write(ours, FrameDecoderTests.Frame(id, [], type));
        Assert.Equal(0, Read(ours, new byte[1]));
        ours.Dispose();
    }

    [Fact]
    public void A_malformed_request_is_an_invalid_argument()
    {
        (SafeFd ours, _) = Pair();
        Write(ours, FrameDecoderTests.Frame(1, [0x0a, 0xff]));
        Assert.Equal(StatusCode.InvalidArgument, ReadResponse(ours, out _).Code);
        ours.Dispose();
    }

    [Fact]
    public void Answers_still_come_after_the_client_shut_its_write_side()
    {
        (SafeFd ours, _) = Pair();
        Write(ours, TtrpcRequest.Encode(1, "test.Echo", "Later", new StringValue(), 0));
        Assert.True(SpinWait.SpinUntil(() => _service.Waiting is not null, Long));
        Libc.shutdown(ours.Value, Libc.SHUT_WR);
        _loop.Post(() => _service.Waiting!.Complete(new StringValue { Value = "bye" }));
        Assert.Equal("bye", StringValue.Parser.ParseFrom(ReadResponse(ours, out _).Payload).Value);
        Assert.Equal(0, Read(ours, new byte[1]));
        ours.Dispose();
    }

    private TtrpcClient Client() => new(Pair().Ours);

    private (SafeFd Ours, SafeFd Theirs) Pair()
    {
        (SafeFd a, SafeFd b) = UnixSocket.Pair();
        _ = Libc.fcntl(b.Value, Libc.F_SETFL, Libc.O_RDWR | Libc.O_NONBLOCK);
        _loop.Invoke(() => _server.Serve(b));
        return (a, b);
    }

    private static string Echo(TtrpcClient client, string text) =>
        client.Call("test.Echo", "Echo", new StringValue { Value = text }, StringValue.Parser, Long).Value;

    private static TtrpcException Fails(TtrpcClient client, string method) => Assert.Throws<TtrpcException>(
        () => client.Call("test.Echo", method, new StringValue(), StringValue.Parser, Long));

    private static unsafe void Write(SafeFd fd, byte[] bytes)
    {
        fixed (byte* p = bytes)
        {
            for (int done = 0; done < bytes.Length;)
            {
                done += (int)Check.Result(Libc.send(fd.Value, p + done, (nuint)(bytes.Length - done), Libc.MSG_NOSIGNAL), "send");
            }
        }
    }

    private static unsafe int Read(SafeFd fd, Span<byte> bytes)
    {
        fixed (byte* p = bytes)
        {
            return (int)Check.Result(Libc.read(fd.Value, p, (nuint)bytes.Length), "read");
        }
    }

    private static TtrpcResponse ReadResponse(SafeFd fd, out uint id)
    {
        FrameDecoder decoder = new();
        FrameHeader header;
        ArraySegment<byte> payload;
        while (decoder.Read(out header, out payload) != FrameResult.Frame)
        {
            int n = Read(fd, decoder.Free());
            Assert.NotEqual(0, n);
            decoder.Advance(n);
        }

        id = header.StreamId;
        return TtrpcResponse.Parse(payload);
    }

    private sealed class EchoService : ITtrpcService
    {
        private volatile TtrpcCall? _waiting;

        public string ServiceName => "test.Echo";

        public TtrpcCall? Waiting => _waiting;

        public bool Invoke(TtrpcCall call)
        {
            switch (call.Request.Method)
            {
                case "Echo":
                    call.Complete(StringValue.Parser.ParseFrom(call.Request.Payload));
                    return true;
                case "Later":
                    _waiting = call;
                    return true;
                case "Missing":
                    throw new TtrpcException(StatusCode.NotFound, "container x does not exist");
                case "Throw":
                    throw new InvalidOperationException("broken");
                default:
                    return false;
            }
        }
    }
}
