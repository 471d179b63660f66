namespace MicroVm.VirtioFs.Operations;

/// <summary>A file's mode before a change of its contents, and what it is to be then; zero: nothing is to be done.</summary>
internal readonly struct SetIdState
{
    public uint Before { get; init; }

    public uint After { get; init; }
}
