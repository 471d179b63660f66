namespace MicroVm.Shim.Streams;

/// <summary>Where a process's streams go, as containerd says: a path of a FIFO, <c>fifo://</c>, <c>file://</c>, <c>binary://</c>, or empty for nowhere.</summary>
/// <param name="Input">Standard input.</param>
/// <param name="Output">Standard output; with <c>file</c> and <c>binary</c>, standard error, too.</param>
/// <param name="Error">Standard error.</param>
/// <param name="Terminal">One terminal is all three.</param>
internal sealed record StdioUris(string Input, string Output, string Error, bool Terminal);
