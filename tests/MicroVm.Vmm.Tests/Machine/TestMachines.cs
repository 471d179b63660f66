using MicroVm.Linux;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Tests.Boot;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Tests.Machine;

/// <summary>Machines that run a few bytes of machine code on the real /dev/kvm.</summary>
internal static class TestMachines
{
    /// <summary>mov dx, 0x600; mov al, 0x34; out dx, al; hlt: the same bytes in 32 and 64-bit code.</summary>
    public static readonly byte[] PowerOff = [0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xf4];

    /// <summary>jmp $</summary>
    public static readonly byte[] Spin = [0xeb, 0xfe];

    public static void RequireKvm() => Skip.IfNot(File.Exists("/dev/kvm"), "no /dev/kvm on this machine: no guest code is run");

    public static VmmConfig Config(byte[] kernel, SafeFd? serial = null) => new()
    {
        Kernel = FileReference.FromFd(ElfBuilder.Memfd(kernel).Release()),
        MemoryMiB = 32,
        Entropy = false,
        Serial = serial is null ? null : FileReference.FromFd(serial.Release()),
    };

    /// <summary>Runs to the end; a guest that does not end within the deadline is stopped.</summary>
    public static VmmExitCode Run(VmmConfig config, Action<VirtualMachine>? inspect = null)
    {
        using VirtualMachine machine = MachineBuilder.Build(config);
        using Timer deadline = new(_ => machine.End(VmmExitCode.Stopped), null, 120_000, Timeout.Infinite);
        VmmExitCode code = machine.Run();
        inspect?.Invoke(machine);
        return code;
    }
}
