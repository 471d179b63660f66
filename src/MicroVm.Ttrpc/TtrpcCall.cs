using Google.Protobuf;

namespace MicroVm.Ttrpc;

/// <summary>
/// One call on a server. Its handler answers once, at once or later, by <see cref="Complete"/> or <see cref="Fail"/>, on
/// the loop's thread. An answer after the connection ended goes nowhere and is no error.
/// </summary>
public sealed class TtrpcCall
{
    private readonly ServerConnection _connection;
    private readonly uint _streamId;

    internal TtrpcCall(ServerConnection connection, uint streamId, TtrpcRequest request)
    {
        _connection = connection;
        _streamId = streamId;
        Request = request;
    }

    /// <summary>What was asked.</summary>
    public TtrpcRequest Request { get; }

    /// <summary>True once answered, and when the client is gone.</summary>
    public bool IsOver => Answered || _connection.IsClosed;

    internal bool Answered { get; private set; }

    /// <summary>Answers with a message.</summary>
    public void Complete(IMessage response)
    {
        if (!Answered)
        {
            byte[] frame;
            try
            {
                frame = TtrpcResponse.Encode(_streamId, response);
            }
            catch (TtrpcException e)
            {
                Fail(e.Code, e.Message);
                return;
            }

            Answered = true;
            _connection.Answer(_streamId, frame);
        }
    }

    /// <summary>Answers with an error.</summary>
    public void Fail(StatusCode code, string message)
    {
        if (!Answered)
        {
            Answered = true;
            _connection.Answer(_streamId, TtrpcResponse.EncodeError(_streamId, code, message));
        }
    }
}

/// <summary>A service that a <see cref="TtrpcServer"/> offers.</summary>
public interface ITtrpcService
{
    /// <summary>Full name, for example <c>microvm.agent.v1.Agent</c>.</summary>
    string ServiceName { get; }

    /// <summary>
    /// Starts a call, on the loop's thread, and does not block. False: there is no such method. A
    /// <see cref="TtrpcException"/> thrown here is the answer; so is an InvalidProtocolBufferException (InvalidArgument).
    /// </summary>
    bool Invoke(TtrpcCall call);
}
