using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Memory;

namespace MicroVm.InstructionEmulator;

/// <summary>What kind of KVM the host has, and what the guest kernel's command line needs because of it.</summary>
public sealed class HostKind
{
    /// <summary>KVM on VT-x or AMD-V: the guest runs on the processor, and nothing special is needed.</summary>
    public static readonly HostKind Standard = new("standard", "");

    /// <summary>
    /// KVM without VT-x or AMD-V (pagetable-based virtual machine): KVM emulates the guest's kernel code instruction by
    /// instruction, shows it the host's CPUID unfiltered, and leaves out some instructions.
    /// </summary>
    /// <remarks>
    /// The features cleared are those that cost emulated instructions without giving anything here: smap, smep, umip
    /// (clac and stac around each user access), pku, popcnt and cx16 (not emulated: each one is a round trip to the VMM),
    /// erms and fsrm (a rep movsb is emulated byte by byte, rep movsq by eight). XSAVE stays: user space sees AVX and uses
    /// it whatever the kernel believes, so the kernel must save it. The rest leaves out what our kernel would do at boot for
    /// seconds and containers do not need: /sys/kernel/slab and /sys/module.
    /// </remarks>
    public static readonly HostKind Pvm = new("pvm", "clearcpuid=smap,smep,umip,pku,cx16,popcnt,erms,fsrm,ssse3,aes microvm.lean_sysfs");

    /// <summary>
    /// What the kernel made for PVM hosts needs in place of <see cref="CommandLine"/>: it knows by itself which features it
    /// must do without, and its page-table isolation stays on. The host mitigates what crosses the VM's edge.
    /// </summary>
    public const string PvmKernelCommandLine = "mitigations=off";

    private HostKind(string name, string commandLine)
    {
        Name = name;
        CommandLine = commandLine;
    }

    /// <summary>"standard" or "pvm".</summary>
    public string Name { get; }

    /// <summary>What to add to the guest kernel's command line; empty for nothing.</summary>
    public string CommandLine { get; }

    /// <summary>Finds out, in microseconds: by the processor's features, or else by running two instructions.</summary>
    /// <param name="vcpu">A vCPU in its reset state, which has not run yet; left as it was.</param>
    /// <param name="memory">The VM's RAM, already in its memslots, at least up to 8 KiB; left as it was.</param>
    /// <exception cref="LinuxException">KVM refuses an elementary call.</exception>
    public static HostKind Detect(KvmVcpu vcpu, GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(vcpu);
        ArgumentNullException.ThrowIfNull(memory);
        return HardwareVirtualization.IsPresent || CanRunPopcnt(vcpu, memory) ? Standard : Pvm;
    }

    /// <summary>
    /// Runs popcnt in real mode: a processor executes it, KVM's instruction emulator does not know it and ends with an
    /// internal error. Only asked where there is no hardware support, so old processors that need the emulator for real
    /// mode are not taken for PVM.
    /// </summary>
    internal static bool CanRunPopcnt(KvmVcpu vcpu, GuestMemory memory)
    {
        const ulong CodeGpa = 0x1000;
        ReadOnlySpan<byte> code = [0xf3, 0x0f, 0xb8, 0xc3, 0xe6, 0x80]; // popcnt ax, bx; out 0x80, al
        vcpu.GetRegs(out kvm_regs savedRegs);
        vcpu.GetSregs(out kvm_sregs savedSregs);
        Span<byte> savedCode = stackalloc byte[code.Length];
        if (!memory.TryRead(CodeGpa, savedCode) || !memory.TryWrite(CodeGpa, code))
        {
            throw new ArgumentException("the probe needs guest RAM at 4 KiB", nameof(memory));
        }

        try
        {
            kvm_sregs sregs = savedSregs;
            sregs.cs.selector = 0;
            sregs.cs.@base = 0;
            vcpu.SetSregs(in sregs);
            vcpu.SetRegs(new kvm_regs { rip = CodeGpa, rbx = 0x55, rflags = 2 });
            Errno errno;
            do
            {
                errno = vcpu.Run();
            }
            while (errno is Errno.EINTR or Errno.EAGAIN && !vcpu.ImmediateExit);
            if (errno != Errno.OK || vcpu.ExitReason != KvmAbi.KVM_EXIT_IO)
            {
                return false;
            }

            // The port write is completed by the next entry, which must not reach the guest.
            vcpu.ImmediateExit = true;
            _ = vcpu.Run();
            vcpu.ImmediateExit = false;
            vcpu.GetRegs(out kvm_regs regs);
            return regs.rax == 4;
        }
        finally
        {
            memory.TryWrite(CodeGpa, savedCode);
            vcpu.SetSregs(in savedSregs);
            vcpu.SetRegs(in savedRegs);
        }
    }
}
