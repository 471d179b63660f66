using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Tests.Boot;
using MicroVm.Vmm.Tests.Machine;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Tests.Snapshot;

/// <summary>A machine of 32 MiB that counts until it is told to power off, and its snapshots.</summary>
internal static unsafe class SavedMachine
{
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

    /// <summary>A machine that counts, with or without devices.</summary>
    public static VmmConfig Config(int vcpus)
    {
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(CountingCode));
        config.Vcpus = vcpus;
        config.Saves = true;
        return config;
    }

    /// <summary>What restores a machine without devices from these files, which stay the caller's.</summary>
    public static VmmConfig Restored(SafeFd state, SafeFd memory, int vcpus) => new()
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

    /// <summary>Runs a machine for a while, and saves it; one that may have more vCPUs has them then.</summary>
    public static (SafeFd State, SafeFd Memory) Save(VmmConfig config, int milliseconds)
    {
        SafeFd state = ElfBuilder.Memfd([]), memory = ElfBuilder.Memfd([]);
        Exception? failure = null;
        using VirtualMachine machine = MachineBuilder.Build(config);
        using Timer timer = new(_ => machine.Loop.Post(() =>
        {
            if (machine.Growth is { } growth)
            {
                growth.Resize(growth.Possible, refused =>
                {
                    failure = refused is null ? null : new IOException(refused);
                    Save();
                });
            }
            else
            {
                Save();
            }
        }), null, milliseconds, Timeout.Infinite);
        void Save() => Assert.True(machine.Pause(() =>
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
        }));
        Assert.Equal(VmmExitCode.Stopped, machine.Run());
        Assert.Null(failure);
        return (state, memory);
    }

    /// <summary>A whole file.</summary>
    public static byte[] ReadAll(SafeFd file)
    {
        byte[] bytes = new byte[Libc.lseek(file.Value, 0, Libc.SEEK_END)];
        fixed (byte* p = bytes)
        {
            Assert.Equal(bytes.Length, (int)Libc.pread(file.Value, p, (nuint)bytes.Length, 0));
        }

        return bytes;
    }
}
