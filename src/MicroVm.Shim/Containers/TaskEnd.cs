namespace MicroVm.Shim.Containers;

/// <summary>How a process ended.</summary>
/// <param name="Status">0 to 255; 128 and the signal when one ended it.</param>
/// <param name="OutOfMemory">The guest's kernel killed it for want of memory.</param>
/// <param name="Lost">Its VM ended first.</param>
internal readonly record struct TaskEnd(uint Status, bool OutOfMemory, bool Lost)
{
    /// <summary>The end of a process whose VM has ended: as by SIGKILL.</summary>
    internal static TaskEnd WithVm => new(128 + Linux.Native.Libc.SIGKILL, OutOfMemory: false, Lost: true);
}
