namespace MicroVm.Shim.Containers;

/// <summary>A process of a container. Any thread may call.</summary>
internal interface ITaskProcess
{
    /// <summary>Waits for its end; the VM's end is one, too.</summary>
    TaskEnd Wait();

    /// <summary>Sends a signal.</summary>
    /// <exception cref="Sandbox.SandboxException">The process has ended, or the guest does not take it.</exception>
    void Signal(int signal);

    /// <summary>Sets its terminal's size.</summary>
    /// <exception cref="Sandbox.SandboxException">The guest does not take it.</exception>
    void Resize(uint width, uint height);

    /// <summary>Its standard input ends when containerd's clients have closed it.</summary>
    void CloseInput();

    /// <summary>
    /// Waits until its output was copied, once it has ended, while there is progress: clients stop reading when they hear of the end.
    /// </summary>
    void Settle();

    /// <summary>Waits until its output was copied, at most <paramref name="patience"/>; false when the time is up.</summary>
    bool Drain(TimeSpan patience);

    /// <summary>Waits until its output was copied, once it has ended: for its reader as long as that takes, and for the guest not long.</summary>
    void DrainAll();

    /// <summary>Closes its streams.</summary>
    void Close();
}
