namespace MicroVm.Ttrpc;

/// <summary>gRPC status codes, which ttrpc's google.rpc.Status carries.</summary>
public enum StatusCode
{
    /// <summary>Success.</summary>
    Ok = 0,

    /// <summary>The call was given up.</summary>
    Cancelled = 1,

    /// <summary>An error without a code.</summary>
    Unknown = 2,

    /// <summary>The request is malformed, whatever the state.</summary>
    InvalidArgument = 3,

    /// <summary>No answer within the client's time.</summary>
    DeadlineExceeded = 4,

    /// <summary>The object does not exist.</summary>
    NotFound = 5,

    /// <summary>The object exists already.</summary>
    AlreadyExists = 6,

    /// <summary>The caller may not do this.</summary>
    PermissionDenied = 7,

    /// <summary>A limit was reached.</summary>
    ResourceExhausted = 8,

    /// <summary>The object is in a state that does not allow this.</summary>
    FailedPrecondition = 9,

    /// <summary>The call was cut short.</summary>
    Aborted = 10,

    /// <summary>Past the valid range.</summary>
    OutOfRange = 11,

    /// <summary>No such service or method.</summary>
    Unimplemented = 12,

    /// <summary>A failure in the server.</summary>
    Internal = 13,

    /// <summary>The connection is gone.</summary>
    Unavailable = 14,

    /// <summary>What came is not what the protocol allows.</summary>
    DataLoss = 15,
}

/// <summary>A call failed: by a server's status, or on the way (<see cref="StatusCode.Unavailable"/>, DeadlineExceeded, DataLoss).</summary>
public sealed class TtrpcException : Exception
{
    /// <summary>Creates the exception.</summary>
    public TtrpcException(StatusCode code, string message, Exception? inner = null)
        : base(message, inner) => Code = code;

    /// <summary>Why the call failed.</summary>
    public StatusCode Code { get; }
}
