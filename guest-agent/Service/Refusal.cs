using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>Errors that several calls answer with.</summary>
internal static class Refusal
{
    /// <summary>The container or process is not in a state in which the call is possible.</summary>
    internal static TtrpcException WrongState(string message) => new(StatusCode.FailedPrecondition, message);
}
