using System.Net.Sockets;
using Google.Protobuf;
using Google.Protobuf.Reflection;
using Grpc.Core;
using Grpc.Net.Client;

namespace MicroVm.Interop.Cri;

/// <summary>Calls methods of the RuntimeService by their names.</summary>
internal sealed class RuntimeClient : IDisposable
{
    private const string Service = "runtime.v1.RuntimeService";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(200);
    private static readonly ServiceDescriptor Methods = CriReflection.Descriptor.Services[0];
    private readonly SocketsHttpHandler _handler;
    private readonly GrpcChannel _channel;

    /// <summary>A client of the service at a Unix socket.</summary>
    internal RuntimeClient(string socket)
    {
        _handler = new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancellation) =>
            {
                Socket connection = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                try
                {
                    await connection.ConnectAsync(new UnixDomainSocketEndPoint(socket), cancellation).ConfigureAwait(false);
                    return new NetworkStream(connection, ownsSocket: true);
                }
                catch
                {
                    connection.Dispose();
                    throw;
                }
            },
        };
        _channel = GrpcChannel.ForAddress("http://localhost", new GrpcChannelOptions { HttpHandler = _handler });
    }

    /// <summary>Makes a call.</summary>
    /// <param name="method">Its name.</param>
    /// <param name="request">The request, as JSON.</param>
    /// <returns>The answer, as JSON on one line.</returns>
    internal async Task<string> CallAsync(string method, string request)
    {
        MethodDescriptor called = Methods.FindMethodByName(method) ?? throw new RpcException(new Status(StatusCode.Unimplemented, $"cri.proto has no {method}"));
        IMessage message = called.InputType.Parser.ParseJson(request);
        Method<byte[], byte[]> bytes = new(MethodType.Unary, Service, method, Marshallers.Create(b => b, b => b), Marshallers.Create(b => b, b => b));
        using AsyncUnaryCall<byte[]> call = _channel.CreateCallInvoker().AsyncUnaryCall(bytes, null, new CallOptions(deadline: DateTime.UtcNow + Patience), message.ToByteArray());
        return JsonFormatter.Default.Format(called.OutputType.Parser.ParseFrom(await call.ResponseAsync.ConfigureAwait(false)));
    }

    public void Dispose()
    {
        _channel.Dispose();
        _handler.Dispose();
    }
}
