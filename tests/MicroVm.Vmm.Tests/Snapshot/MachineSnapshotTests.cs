using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Tests.Boot;
using MicroVm.Vmm.Tests.Machine;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Tests.Snapshot;

/// <summary>Machines that are saved while they run, and go on in another VM.</summary>
public sealed class MachineSnapshotTests
{
    private const ulong Counter = 0x80000, Flag = 0x80008;

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(2)]
    public void A_machine_goes_on_where_it_was_saved(int vcpus)
    {
        TestMachines.RequireKvm();
        foreach (int delay in (int[])[1, 7, 30, 90])
        {
            (SafeFd state, SafeFd memory) = SavedMachine.Save(SavedMachine.Config(vcpus), delay);
            using (state)
            using (memory)
            {
                // Twice: a machine that ran changed nothing in the files.
                for (int i = 0; i < 2; i++)
                {
                    using VirtualMachine machine = MachineBuilder.Build(SavedMachine.Restored(state, memory, vcpus));
                    Assert.True(machine.Memory.TryRead(Counter, out uint before));
                    Assert.True(machine.Memory.TryWrite(Flag, [1]));
                    using Timer deadline = new(_ => machine.End(VmmExitCode.Stopped), null, 120_000, Timeout.Infinite);
                    Assert.Equal(VmmExitCode.PoweredOff, machine.Run());
                    Assert.True(machine.Memory.TryRead(Counter, out uint after));
                    Assert.True(after >= before, $"the counter was {before}, and is {after}");
                }
            }
        }
    }

    /// <summary>Pages that are copied before the guest runs are those of the file, and a set may name pages that there are not.</summary>
    [SkippableFact]
    public void Pages_may_be_copied_before_the_guest_writes_them()
    {
        TestMachines.RequireKvm();
        (SafeFd state, SafeFd memory) = SavedMachine.Save(SavedMachine.Config(1), 5);
        using (state)
        using (memory)
        using (SafeFd pages = ElfBuilder.Memfd(PageSet.Of([0, 1, (uint)(Counter / 4096), 8000, 8190, 8191, 8192, 1 << 30]).ToArray()))
        {
            VmmConfig config = WithPages(pages);
            using (VirtualMachine machine = MachineBuilder.Build(config))
            {
                Assert.True(machine.Memory.TryRead(Counter, out uint before));
                Assert.True(machine.Memory.TryWrite(Flag, [1]));
                using Timer deadline = new(_ => machine.End(VmmExitCode.Stopped), null, 120_000, Timeout.Infinite);
                Assert.Equal(VmmExitCode.PoweredOff, machine.Run());
                Assert.True(machine.Memory.TryRead(Counter, out uint after) && after >= before, $"the counter was {before}");
            }

            Check.Result(Libc.ftruncate(pages.Value, 13), "ftruncate");
            Assert.Contains("the file of pages has 13 bytes", Refused(WithPages(pages)), StringComparison.Ordinal);
        }

        VmmConfig WithPages(SafeFd pages)
        {
            VmmConfig config = SavedMachine.Restored(state, memory, 1);
            config.Restore!.Pages = FileReference.FromFd(pages.Duplicate().Release());
            return config;
        }
    }

    [SkippableFact]
    public void A_machine_that_has_grown_goes_on_with_the_vCPUs_that_it_had()
    {
        TestMachines.RequireKvm();
        VmmConfig config = SavedMachine.Config(1);
        config.MaxVcpus = 2;
        (SafeFd state, SafeFd memory) = SavedMachine.Save(config, 5);
        using (state)
        using (memory)
        {
            VmmConfig restored = SavedMachine.Restored(state, memory, 1);
            restored.MaxVcpus = 2;
            using (VirtualMachine machine = MachineBuilder.Build(restored))
            {
                Assert.Equal(2, machine.Vcpus.Count);
                Assert.True(machine.Memory.TryWrite(Flag, [1]));
                using Timer deadline = new(_ => machine.End(VmmExitCode.Stopped), null, 120_000, Timeout.Infinite);
                Assert.Equal(VmmExitCode.PoweredOff, machine.Run());
            }

            Assert.EndsWith("): the snapshot does not fit: it has 2 vCPUs, the configuration 1", Refused(SavedMachine.Restored(state, memory, 1)), StringComparison.Ordinal);
            restored = SavedMachine.Restored(state, memory, 3);
            restored.MaxVcpus = 4;
            Assert.EndsWith("): the snapshot does not fit: it has 2 vCPUs, the configuration 3 to 4", Refused(restored), StringComparison.Ordinal);
        }
    }

    [SkippableFact]
    public void What_does_not_fit_is_refused_by_name()
    {
        TestMachines.RequireKvm();
        (SafeFd state, SafeFd memory) = SavedMachine.Save(SavedMachine.Config(1), 5);
        using (state)
        using (memory)
        {
            VmmConfig config = SavedMachine.Restored(state, memory, 1);
            config.MemoryMiB = 64;
            Assert.EndsWith("): the snapshot does not fit: it has 32 MiB, the configuration 64", Refused(config), StringComparison.Ordinal);
            Assert.EndsWith("): the snapshot does not fit: it has 1 vCPUs, the configuration 2", Refused(SavedMachine.Restored(state, memory, 2)), StringComparison.Ordinal);
            config = SavedMachine.Restored(state, memory, 1);
            config.Entropy = true;
            Assert.EndsWith("): the snapshot does not fit: it has the devices \"\", the configuration \"rng\"", Refused(config), StringComparison.Ordinal);
            Check.Result(Libc.ftruncate(memory.Value, 4096), "ftruncate");
            Assert.Contains("the memory file has 4096 bytes", Refused(SavedMachine.Restored(state, memory, 1)), StringComparison.Ordinal);
        }
    }

    private static string Refused(VmmConfig config) => Assert.Throws<SnapshotException>(() => MachineBuilder.Build(config)).Message;
}
