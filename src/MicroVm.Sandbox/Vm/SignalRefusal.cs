using MicroVm.Linux;
using MicroVm.Sandbox.Runtime;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Vm;

/// <summary>
/// Why a process in the guest cannot be signalled. Callers that clean up after a failed start signal first, and go on only when the
/// answer is that there is no such process: a VM that has just ended has none.
/// </summary>
internal static class SignalRefusal
{
    /// <summary>Makes a call about a process.</summary>
    /// <exception cref="SandboxException">It failed.</exception>
    internal static T Call<T>(Func<T> call)
    {
        try
        {
            return call();
        }
        catch (Exception e) when (Knows(e))
        {
            throw Of(e);
        }
    }

    /// <summary>Whether <see cref="Of"/> knows a call's failure.</summary>
    internal static bool Knows(Exception failure) => failure is TtrpcException or LinuxException or ObjectDisposedException;

    /// <summary>What the command's user is told.</summary>
    /// <param name="failure">How the call to the agent failed.</param>
    internal static SandboxException Of(Exception failure)
    {
        bool gone = failure is not TtrpcException { Code: not (StatusCode.NotFound or StatusCode.Unavailable or StatusCode.DataLoss) };
        return new SandboxException(gone ? RuntimeTexts.NotRunning : failure.Message, failure);
    }
}
