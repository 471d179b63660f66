using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Tests.Boot;
using MicroVm.Vmm.Tests.Machine;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Tests.Snapshot;

/// <summary>Machines that are saved while they run, and go on in another VM; and files that say what no machine can be.</summary>
public sealed unsafe class MachineSnapshotTests
{
    private const ulong Counter = 0x80000, Flag = 0x80008;
    private const int HostileFiles = 150;

    /// <summary>Counts in a register and in memory until the flag is set; resets when the two differ.</summary>
    private static readonly byte[] CountingCode =
    [
        0x31, 0xdb, // xor ebx, ebx
        0xff, 0xc3, // inc ebx
        0xff, 0x04, 0x25, 0x00, 0x00, 0x08, 0x00, // inc dword [0x80000]
        0x3b, 0x1c, 0x25, 0x00, 0x00, 0x08, 0x00, // cmp ebx, [0x80000]
        0x75, 0x12, // jne to the reset
        0x80, 0x3c, 0x25, 0x08, 0x00, 0x08, 0x00, 0x00, // cmp byte [0x80008], 0
        0x74, 0xe4, // je to the inc
        .. TestMachines.PowerOff,
        0xb0, 0xfe, 0xe6, 0x64, 0xf4,
    ];

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(2)]
    public void A_machine_goes_on_where_it_was_saved(int vcpus)
    {
        TestMachines.RequireKvm();
        foreach (int delay in (int[])[1, 7, 30, 90])
        {
            (SafeFd state, SafeFd memory) = Save(Config(vcpus), delay);
            using (state)
            using (memory)
            {
                // Twice: a machine that ran changed nothing in the files.
                for (int i = 0; i < 2; i++)
                {
                    using VirtualMachine machine = MachineBuilder.Build(Restored(state, memory, vcpus));
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

    [SkippableFact]
    public void What_does_not_fit_is_refused_by_name()
    {
        TestMachines.RequireKvm();
        (SafeFd state, SafeFd memory) = Save(Config(1), 5);
        using (state)
        using (memory)
        {
            VmmConfig config = Restored(state, memory, 1);
            config.MemoryMiB = 64;
            Assert.EndsWith("): the snapshot does not fit: it has 32 MiB, the configuration 64", Refused(config), StringComparison.Ordinal);
            Assert.EndsWith("): the snapshot does not fit: it has 1 vCPUs, the configuration 2", Refused(Restored(state, memory, 2)), StringComparison.Ordinal);
            config = Restored(state, memory, 1);
            config.Entropy = true;
            Assert.EndsWith("): the snapshot does not fit: it has the devices \"\", the configuration \"rng\"", Refused(config), StringComparison.Ordinal);
            Check.Result(Libc.ftruncate(memory.Value, 4096), "ftruncate");
            Assert.Contains("the memory file has 4096 bytes", Refused(Restored(state, memory, 1)), StringComparison.Ordinal);
        }
    }

    /// <summary>Whatever the sections say, with right checksums: a machine is built, or refused with one sentence.</summary>
    [SkippableFact]
    public void Any_state_is_taken_or_refused()
    {
        TestMachines.RequireKvm();
        VmmConfig saved = Config(1);
        saved.Entropy = true;
        (SafeFd state, SafeFd memory) = Save(saved, 5);
        using (state)
        using (memory)
        {
            SnapshotFile file = SnapshotFile.Parse(ReadAll(state));
            int refused = 0;
            for (int seed = 0; seed < HostileFiles; seed++)
            {
                Random random = new(seed);
                using SafeFd changed = ElfBuilder.Memfd(Change(file, random));
                VmmConfig config = Restored(changed, memory, 1);
                config.Entropy = true;
                try
                {
                    MachineBuilder.Build(config).Dispose();
                }
                catch (SnapshotException e)
                {
                    refused++;
                    Assert.DoesNotContain(e.Message, char.IsControl);
                }
            }

            Assert.InRange(refused, 1, HostileFiles);
        }
    }

    /// <summary>A state with a few numbers changed in a section that is not the header, or with a section cut, missing or of another version.</summary>
    private static byte[] Change(SnapshotFile file, Random random)
    {
        SnapshotWriter writer = new(file.Header);
        int chosen = random.Next(1, file.Sections.Count);
        for (int i = 1; i < file.Sections.Count; i++)
        {
            SnapshotSection section = file.Sections[i];
            byte[] content = section.Content.ToArray();
            int kind = i == chosen ? random.Next(8) : -1;
            switch (kind)
            {
                case 0:
                    continue;
                case 1:
                    content = content[..random.Next(content.Length)];
                    break;
                case >= 2:
                    for (int n = random.Next(1, 5); n > 0 && content.Length > 0; n--)
                    {
                        content[random.Next(content.Length)] = random.Next(3) switch
                        {
                            0 => 0xff,
                            1 => 0,
                            _ => (byte)random.Next(256),
                        };
                    }

                    break;
            }

            writer.Add(section.Name, kind == 7 ? section.Version + 1 : section.Version, content);
        }

        return writer.ToArray();
    }

    private static VmmConfig Config(int vcpus)
    {
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(CountingCode));
        config.Vcpus = vcpus;
        config.Saves = true;
        return config;
    }

    private static VmmConfig Restored(SafeFd state, SafeFd memory, int vcpus) => new()
    {
        MemoryMiB = 32,
        Vcpus = vcpus,
        Entropy = false,
        Restore = new RestoreConfig
        {
            State = FileReference.FromFd(state.Duplicate().Release()),
            Memory = FileReference.FromFd(memory.Duplicate().Release()),
        },
    };

    private static string Refused(VmmConfig config) => Assert.Throws<SnapshotException>(() => MachineBuilder.Build(config)).Message;

    /// <summary>Runs a machine for a while, and saves it.</summary>
    private static (SafeFd State, SafeFd Memory) Save(VmmConfig config, int milliseconds)
    {
        SafeFd state = ElfBuilder.Memfd([]), memory = ElfBuilder.Memfd([]);
        Exception? failure = null;
        using VirtualMachine machine = MachineBuilder.Build(config);
        using Timer timer = new(_ => machine.Loop.Post(() => machine.Pause(() =>
        {
            try
            {
                MachineSnapshot.Save(machine, state, memory);
            }
            catch (IOException e)
            {
                failure = e;
            }

            machine.End(VmmExitCode.Stopped);
        })), null, milliseconds, Timeout.Infinite);
        Assert.Equal(VmmExitCode.Stopped, machine.Run());
        Assert.Null(failure);
        return (state, memory);
    }

    private static byte[] ReadAll(SafeFd file)
    {
        byte[] bytes = new byte[Libc.lseek(file.Value, 0, Libc.SEEK_END)];
        fixed (byte* p = bytes)
        {
            Assert.Equal(bytes.Length, (int)Libc.pread(file.Value, p, (nuint)bytes.Length, 0));
        }

        return bytes;
    }
}
