using MicroVm.Linux;

namespace MicroVm.Sandbox.Streams;

/// <summary>The standard streams that a process of a container has on the host: this process's own, or others that it owns.</summary>
internal sealed class ProcessStreams(SafeFd input, SafeFd output, SafeFd error, SafeFd? terminal = null) : IDisposable
{
    /// <summary>This process's own.</summary>
    /// <param name="terminal">The caller's terminal, where none of them is one.</param>
    internal static ProcessStreams OfThisProcess(SafeFd? terminal) => new(HostStreams.Input, HostStreams.Output, HostStreams.Error, terminal);

    /// <summary>The caller's terminal; null when there is none.</summary>
    internal SafeFd? Terminal => CallerTerminal.Among(error, output, input) ?? terminal;

    /// <summary>Standard input.</summary>
    internal SafeFd Input => input;

    /// <summary>Standard output.</summary>
    internal SafeFd Output => output;

    /// <summary>Standard error.</summary>
    internal SafeFd Error => error;

    /// <summary>Lets go of them: who waits for the end of what they were waits no more.</summary>
    internal void Drop()
    {
        foreach (SafeFd stream in (SafeFd[])[input, output, error])
        {
            HostStreams.End(stream);
        }
    }

    public void Dispose()
    {
        Drop();
        foreach (SafeFd stream in (SafeFd[])[input, output, error])
        {
            if (!stream.IsClosed && stream.Value > 2)
            {
                stream.Dispose();
            }
        }
    }
}
