namespace MicroVm.VmmControl.Snapshots;

/// <summary>A snapshot cannot be written, read or used; the message is one sentence that says why.</summary>
public sealed class SnapshotException : IOException
{
    /// <summary>Creates the exception with its text.</summary>
    public SnapshotException(string message)
        : base(message)
    {
    }
}
