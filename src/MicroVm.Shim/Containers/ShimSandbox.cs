using System.Globalization;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Shim.Containers;

/// <summary>The VM of a shim, with the thread that owns it.</summary>
internal sealed class ShimSandbox : IDisposable
{
    private readonly OwnerThread _owner = new();
    private PodSandbox? _pod;
    private int _ended;

    /// <summary>The VM and what its containers share; only after <see cref="Prepare"/>.</summary>
    internal PodSandbox Pod => _pod ?? throw new InvalidOperationException("there is no VM yet");

    /// <summary>Connects the network.</summary>
    /// <exception cref="Sandbox.SandboxException">An interface cannot be connected.</exception>
    internal void Prepare(SandboxBoot boot, ContainerStore store)
    {
        ProcessIdentity own = ProcessIdentity.Current;
        string folder = string.Create(CultureInfo.InvariantCulture, $"{own.Pid}-{own.StartTime}");

        // The owner is in the container's cgroup, and the rest of this process is not.
        _pod = boot.Prepare(store, folder, MainThread.NetworkPath, cgroup => _owner.Do(() => cgroup.JoinThread()?.Dispose()));
    }

    /// <summary>Starts the VMM, which ends with this sandbox.</summary>
    /// <exception cref="Sandbox.SandboxException">It cannot be started.</exception>
    internal Vmm Start(SandboxBoot boot)
    {
        Vmm? vmm = null;
        _owner.Do(() => vmm = boot.Start());
        vmm!.ReadConsole();
        return vmm;
    }

    /// <summary>Takes a container out; with the last one the VM ends.</summary>
    internal void TakeOut(SandboxContainer container, Action<string> warn)
    {
        if (Pod.TakeOut(container, Dispose, warn))
        {
            container.Dispose();
        }
    }

    /// <summary>Ends the VM; a second call does nothing.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _ended, 1) == 0)
        {
            _pod?.Dispose();
            _owner.Dispose();
        }
    }
}
