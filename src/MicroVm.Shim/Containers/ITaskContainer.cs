using MicroVm.Oci.Config;
using MicroVm.Sandbox.Runtime;
using MicroVm.Shim.Streams;

namespace MicroVm.Shim.Containers;

/// <summary>A container, created, in its VM. Any thread may call; failures are SandboxException or SpecException.</summary>
internal interface ITaskContainer
{
    /// <summary>The process on the host that stands for all of the container's: the VMM.</summary>
    int Pid { get; }

    /// <summary>Its first process, which waits for <see cref="Start"/>.</summary>
    ITaskProcess Init { get; }

    /// <summary>Lets the first process run.</summary>
    void Start();

    /// <summary>Starts a further process.</summary>
    /// <param name="process">The process.</param>
    /// <param name="uris">Its streams.</param>
    /// <param name="size">Columns and rows of its terminal; zeros leave the process's own.</param>
    ITaskProcess Exec(Process process, StdioUris uris, (uint Width, uint Height) size);

    /// <summary>Sends a signal to the first process, or to all.</summary>
    void Signal(int signal, bool all);

    /// <summary>Freezes its processes.</summary>
    void Pause();

    /// <summary>Thaws them.</summary>
    void Resume();

    /// <summary>Changes limits.</summary>
    void Update(Resources change);

    /// <summary>Its figures.</summary>
    ContainerFigures Statistics();

    /// <summary>Calls <paramref name="killed"/> for each kill for want of memory, on the calling thread, until the container has ended.</summary>
    void FollowOutOfMemory(Action killed);

    /// <summary>The first process has ended: who follows kills is answered.</summary>
    void NoteEnd(bool outOfMemory);

    /// <summary>
    /// Ends what is left of its processes, and takes it out of its VM; the end of the last container is the VM's. A second call does nothing.
    /// </summary>
    void End();

    /// <summary>Ends it, and removes everything of it from the host.</summary>
    void Delete();
}
