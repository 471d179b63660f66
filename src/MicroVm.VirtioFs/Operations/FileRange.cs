namespace MicroVm.VirtioFs.Operations;

/// <summary>Offset and length of a part of a file, as the guest sends them.</summary>
internal static class FileRange
{
    /// <summary>The range and its end are offsets that the host's off_t can hold.</summary>
    public static bool IsValid(ulong offset, ulong length) => offset <= long.MaxValue && length <= long.MaxValue - offset;
}
