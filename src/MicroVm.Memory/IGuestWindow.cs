namespace MicroVm.Memory;

/// <summary>Memory of the guest beside its RAM whose pages may get lost.</summary>
public interface IGuestWindow
{
    /// <summary>
    /// A vCPU touched a page that is not there: puts pages where some are missing that the guest may expect. On the vCPU's thread.
    /// </summary>
    /// <returns>False when none are missing.</returns>
    bool TryRepair();
}
