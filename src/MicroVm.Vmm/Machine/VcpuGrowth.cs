using MicroVm.Linux;

namespace MicroVm.Vmm.Machine;

/// <summary>
/// Changes how many vCPUs of a VM run. Those that come later are created by their own threads, which have waited since the start; those that
/// are not wanted any more stand still outside of KVM until they are wanted again. Device thread only.
/// </summary>
/// <param name="machine">The VM.</param>
/// <param name="possible">How many it may have: the guest's kernel was told of as many.</param>
internal sealed class VcpuGrowth(VirtualMachine machine, int possible)
{
    private Action<string?>? _done;
    private int _wanted;

    /// <summary>How many vCPUs run the guest.</summary>
    internal int Running { get; private set; } = machine.Vcpus.Count;

    /// <summary>How many there may be.</summary>
    internal int Possible => possible;

    /// <summary>Whether a vCPU is being created.</summary>
    internal bool IsUnderWay => _done is not null;

    /// <summary>
    /// Has so many vCPUs run, those with the lowest numbers. The guest's kernel must have taken off line what is to stand still, and brings on
    /// line itself what is added.
    /// </summary>
    /// <param name="count">1 up to <see cref="Possible"/>.</param>
    /// <param name="done">Gets null, or why there are not so many; perhaps later.</param>
    internal void Resize(int count, Action<string?> done)
    {
        string? refused =
            count < 1 || count > possible ? $"{count} vCPUs are not 1 to {possible}"
            : IsUnderWay ? "a change is under way already"
            : machine.IsPaused ? "the VM is paused"
            : null;
        if (refused is not null)
        {
            done(refused);
            return;
        }

        (_wanted, _done) = (count, done);
        for (int i = count; i < machine.Vcpus.Count; i++)
        {
            machine.Vcpus[i].StandStill();
        }

        Running = Math.Min(count, machine.Vcpus.Count);
        for (int i = 0; i < Running; i++)
        {
            machine.Vcpus[i].RunOn();
        }

        Continue(null);
    }

    private void Continue(string? failure)
    {
        if (failure is null && machine.Vcpus.Count < _wanted)
        {
            machine.CreateNextVcpu(e => machine.Loop.Post(() => OnCreated(e)));
            return;
        }

        Action<string?>? done = _done;
        _done = null;
        done?.Invoke(failure);
    }

    private void OnCreated(LinuxException? refused)
    {
        if (refused is null)
        {
            machine.CountNextVcpu();
            Running++;
        }

        Continue(refused is null ? null : $"KVM does not create vCPU {machine.Vcpus.Count}: {refused.Message}");
    }
}
