using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Tasks;

/// <summary>The statuses that containerd's clients tell failures apart by.</summary>
internal static class TaskErrors
{
    internal static TtrpcException NoTask(string id) => new(StatusCode.NotFound, $"container {id} not created");

    internal static TtrpcException NoProcess(string id) => new(StatusCode.NotFound, $"process does not exist {id}");

    internal static TtrpcException Ended(string id) => new(StatusCode.NotFound, $"process already finished: {id}");

    internal static TtrpcException Exists(string what, string id) => new(StatusCode.AlreadyExists, $"{what} {id} already exists");

    internal static TtrpcException WrongState(string message) => new(StatusCode.FailedPrecondition, message);

    /// <summary>The status of a failure.</summary>
    internal static (StatusCode Code, string Message) Of(Exception failure) => failure switch
    {
        TtrpcException e => (e.Code, e.Message),
        SpecException e => (StatusCode.InvalidArgument, e.Message),
        SandboxException { Message: RuntimeTexts.NotRunning } e => (StatusCode.NotFound, e.Message),
        SandboxException or LinuxException => (StatusCode.Unknown, failure.Message),
        _ => (StatusCode.Internal, failure.ToString()),
    };
}
