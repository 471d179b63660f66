using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Tests.Shared.Fuzz;
using Xunit;

namespace MicroVm.Ttrpc.Tests.Fuzz;

/// <summary>Both ends of ttrpc, told lies by the other: a server serves its honest clients on, a client's call fails in time.</summary>
public sealed class TtrpcFuzz
{
    private static readonly byte[][] Requests =
    [
        TtrpcRequest.Encode(1, "test.Fuzz", "Echo", new StringValue { Value = "hello" }, 0),
        TtrpcRequest.Encode(3, "test.Fuzz", "Create", new CreateContainerRequest { ContainerId = "c", Stdio = new StdioPorts { Stdin = 7 } }, 5),
        TtrpcRequest.Encode(5, "test.Other", "Echo", new Protocol.Agent.Empty(), 1L << 60),
    ];

    private static readonly byte[][] Responses =
    [
        TtrpcResponse.Encode(1, new WaitProcessResponse { ExitStatus = 3, Signal = 9, ExitedAtNanoseconds = 1L << 60 }),
        TtrpcResponse.Encode(3, new WaitProcessResponse()),
        TtrpcResponse.EncodeError(1, StatusCode.NotFound, "container x does not exist"),
    ];

    [Fact]
    public void Server()
    {
        using EventLoop loop = new();
        TtrpcServer server = new(loop, new FuzzService());
        Thread thread = new(loop.Run) { IsBackground = true };
        thread.Start();
        using TtrpcClient honest = new(Connect(loop, server));
        Fuzzing.Run("ttrpc-server", random =>
        {
            using (SafeFd hostile = Connect(loop, server))
            {
                _ = Libc.fcntl(hostile.Value, Libc.F_SETFL, Libc.O_NONBLOCK);
                for (int frames = random.Next(1, 8); frames > 0; frames--)
                {
                    Send(hostile, Spoiling.Bytes(Requests[random.Next(Requests.Length)], random));
                }
            }

            Assert.Equal("x", honest.Call("test.Fuzz", "Echo", new StringValue { Value = "x" }, StringValue.Parser, TimeSpan.FromSeconds(60)).Value);
        });
        loop.Post(server.Dispose);
        loop.Stop();
        thread.Join();
    }

    [Fact]
    public void Client() => Fuzzing.Run("ttrpc-client", random =>
    {
        (SafeFd mine, SafeFd other) = UnixSocket.Pair();
        using SafeFd its = other;
        using TtrpcClient client = new(mine);
        for (int frames = random.Next(1, 6); frames > 0; frames--)
        {
            Send(its, Spoiling.Bytes(Responses[random.Next(Responses.Length)], random));
        }

        try
        {
            _ = client.Call("test.Fuzz", "Wait", new ProcessId { ContainerId = "c" }, WaitProcessResponse.Parser, TimeSpan.FromMilliseconds(random.Next(1, 20)));
        }
        catch (TtrpcException e)
        {
            Assert.InRange(e.Message.Length, 1, 5000);
        }
    });

    private static SafeFd Connect(EventLoop loop, TtrpcServer server)
    {
        (SafeFd client, SafeFd its) = UnixSocket.Pair();
        loop.Invoke(() => server.Serve(its));
        return client;
    }

    private static unsafe void Send(SafeFd to, byte[] bytes)
    {
        fixed (byte* p = bytes)
        {
            _ = Libc.send(to.Value, p, (nuint)bytes.Length, Libc.MSG_NOSIGNAL | Libc.MSG_DONTWAIT);
        }
    }

    private sealed class FuzzService : ITtrpcService
    {
        public string ServiceName => "test.Fuzz";

        public bool Invoke(TtrpcCall call)
        {
            switch (call.Request.Method)
            {
                case "Echo":
                    call.Complete(StringValue.Parser.ParseFrom(call.Request.Payload));
                    return true;
                case "Create":
                    call.Complete(CreateContainerRequest.Parser.ParseFrom(call.Request.Payload));
                    return true;
                default:
                    return false;
            }
        }
    }
}
