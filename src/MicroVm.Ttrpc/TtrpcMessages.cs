using Google.Protobuf;

namespace MicroVm.Ttrpc;

/// <summary>
/// ttrpc's Request message: service = 1, method = 2, payload = 3, timeout_nano = 4, metadata = 5 (ignored).
/// Source: containerd/ttrpc request.proto.
/// </summary>
/// <param name="Service">Full name of the service, for example <c>microvm.agent.v1.Agent</c>.</param>
/// <param name="Method">The method's name.</param>
/// <param name="Payload">The request message, encoded.</param>
/// <param name="TimeoutNanoseconds">How long the client will wait; 0: for ever.</param>
public readonly record struct TtrpcRequest(string Service, string Method, ByteString Payload, long TimeoutNanoseconds)
{
    /// <summary>Decodes a request.</summary>
    /// <exception cref="InvalidProtocolBufferException">The bytes are not a Request.</exception>
    public static TtrpcRequest Parse(ArraySegment<byte> bytes)
    {
        string service = "", method = "";
        ByteString payload = ByteString.Empty;
        long timeout = 0;
        using CodedInputStream input = new(bytes.Array!, bytes.Offset, bytes.Count);
        uint tag;
        while ((tag = input.ReadTag()) != 0)
        {
            switch (tag)
            {
                case (1 << 3) | 2:
                    service = input.ReadString();
                    break;
                case (2 << 3) | 2:
                    method = input.ReadString();
                    break;
                case (3 << 3) | 2:
                    payload = input.ReadBytes();
                    break;
                case 4 << 3:
                    timeout = input.ReadInt64();
                    break;
                default:
                    input.SkipLastField();
                    break;
            }
        }

        return new TtrpcRequest(service, method, payload, timeout);
    }

    /// <summary>Makes a request's whole frame.</summary>
    /// <exception cref="TtrpcException">The message is larger than a frame may be (RESOURCE_EXHAUSTED).</exception>
    public static byte[] Encode(uint streamId, string service, string method, IMessage message, long timeoutNanoseconds)
    {
        ArgumentNullException.ThrowIfNull(message);
        int payload = message.CalculateSize();
        FrameWriter w = new(
            streamId,
            FrameType.Request,
            (long)FrameWriter.StringField(service) + FrameWriter.StringField(method) + FrameWriter.BytesField(payload)
                + (timeoutNanoseconds == 0 ? 0 : 1 + CodedOutputStream.ComputeInt64Size(timeoutNanoseconds)));
        w.String(1, service);
        w.String(2, method);
        w.Message(3, message, payload);
        if (timeoutNanoseconds != 0)
        {
            w.Varint(4 << 3);
            w.Varint((ulong)timeoutNanoseconds);
        }

        return w.Frame;
    }
}

/// <summary>
/// ttrpc's Response message: status = 1 (google.rpc.Status: code = 1, message = 2), payload = 2.
/// Source: containerd/ttrpc request.proto.
/// </summary>
/// <param name="Code">The status; Ok when the message holds none.</param>
/// <param name="Message">The status's text.</param>
/// <param name="Payload">The response message, encoded.</param>
public readonly record struct TtrpcResponse(StatusCode Code, string Message, ByteString Payload)
{
    /// <summary>Decodes a response.</summary>
    /// <exception cref="InvalidProtocolBufferException">The bytes are not a Response.</exception>
    public static TtrpcResponse Parse(ArraySegment<byte> bytes)
    {
        int code = 0;
        string message = "";
        ByteString payload = ByteString.Empty;
        using CodedInputStream input = new(bytes.Array!, bytes.Offset, bytes.Count);
        uint tag;
        while ((tag = input.ReadTag()) != 0)
        {
            switch (tag)
            {
                case (1 << 3) | 2:
                    ParseStatus(input.ReadBytes(), ref code, ref message);
                    break;
                case (2 << 3) | 2:
                    payload = input.ReadBytes();
                    break;
                default:
                    input.SkipLastField();
                    break;
            }
        }

        return new TtrpcResponse((StatusCode)code, message, payload);
    }

    /// <summary>Makes a successful response's whole frame.</summary>
    /// <exception cref="TtrpcException">The message is larger than a frame may be (RESOURCE_EXHAUSTED).</exception>
    public static byte[] Encode(uint streamId, IMessage message)
    {
        ArgumentNullException.ThrowIfNull(message);
        int payload = message.CalculateSize();
        FrameWriter w = new(streamId, FrameType.Response, FrameWriter.BytesField(payload));
        w.Message(2, message, payload);
        return w.Frame;
    }

    /// <summary>Makes a failed response's whole frame.</summary>
    public static byte[] EncodeError(uint streamId, StatusCode code, string message)
    {
        const int longest = 64 << 10;
        ArgumentNullException.ThrowIfNull(message);
        message = message.Length > longest ? message[..longest] : message;
        int status = 1 + CodedOutputStream.ComputeInt32Size((int)code) + FrameWriter.StringField(message);
        FrameWriter w = new(streamId, FrameType.Response, FrameWriter.BytesField(status));
        w.Varint((1 << 3) | 2);
        w.Varint((ulong)status);
        w.Varint(1 << 3);
        w.Varint((ulong)code);
        w.String(2, message);
        return w.Frame;
    }

    private static void ParseStatus(ByteString bytes, ref int code, ref string message)
    {
        using CodedInputStream input = bytes.CreateCodedInput();
        uint tag;
        while ((tag = input.ReadTag()) != 0)
        {
            switch (tag)
            {
                case 1 << 3:
                    code = input.ReadInt32();
                    break;
                case (2 << 3) | 2:
                    message = input.ReadString();
                    break;
                default:
                    input.SkipLastField();
                    break;
            }
        }
    }
}
