using Iced.Intel;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Memory;
using Xunit;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>A <see cref="TestGuest"/> on this host's KVM with the assist in its run loop.</summary>
internal sealed class KvmGuest : IDisposable
{
    private readonly KvmSystem _system;
    private readonly KvmVm _vm;

    private KvmGuest(KvmSystem system)
    {
        _system = system;
        Machine = new TestGuest();
        _vm = system.CreateVm();
        _vm.SetTssAddress(0xfffb_d000);
        _vm.CreateIrqchip();
        foreach (GuestRegion region in Machine.Memory.Regions)
        {
            _vm.SetMemoryRegion(0, region.Gpa, region.Length, region.Hva);
        }

        Vcpu = _vm.CreateVcpu(0);
        Vcpu.SetCpuid2(system.GetSupportedCpuid());
        Assist = new Emulator(Vcpu, Machine.Memory);
    }

    public TestGuest Machine { get; }

    public KvmVcpu Vcpu { get; }

    public Emulator Assist { get; }

    /// <summary>The exception that ended the last program, or null.</summary>
    public byte? Vector { get; private set; }

    /// <summary>RIP that the exception pushed.</summary>
    public ulong FaultRip { get; private set; }

    /// <summary>The error code that the exception pushed, for those that have one.</summary>
    public uint FaultErrorCode { get; private set; }

    public kvm_regs Regs { get; private set; }

    public kvm_sregs Sregs { get; private set; }

    public static KvmGuest Start()
    {
        try
        {
            return new KvmGuest(KvmSystem.Open());
        }
        catch (KvmUnavailableException e)
        {
            Skip.If(true, "NO KVM HERE: " + e.Message);
            throw;
        }
    }

    public void Run(Action<Assembler> program) => Assert.Null(TryRun(program));

    /// <summary>Runs a program until it is through or an exception is taken.</summary>
    /// <returns>The assist's failure, or null.</returns>
    public string? TryRun(Action<Assembler> program)
    {
        byte[] code = NativeInstruction.Assemble(c =>
        {
            program(c);
            c.@out(TestGuest.StopPort, Iced.Intel.AssemblerRegisters.al);
            c.hlt();
        });
        Assert.True(Machine.Memory.TryWrite(TestGuest.CodeAddress, code));
        Vcpu.GetSregs(out kvm_sregs sregs);
        TestGuest.SetLongMode(ref sregs);
        Vcpu.SetSregs(in sregs);
        Vcpu.SetRegs(new kvm_regs { rip = TestGuest.CodeAddress, rsp = TestGuest.StackTop, rflags = 2 });
        Vector = null;
        for (int exits = 0; exits < 1000; exits++)
        {
            Errno errno = Vcpu.Run();
            Assert.True(errno is Errno.OK or Errno.EINTR, $"KVM_RUN: {errno}");
            if (errno == Errno.EINTR)
            {
                continue;
            }

            if (Vcpu.ExitReason == KvmAbi.KVM_EXIT_INTERNAL_ERROR)
            {
                if (Assist.TryComplete(out string? failure) == AssistResult.Unsupported)
                {
                    return failure;
                }

                continue;
            }

            Assert.Equal(KvmAbi.KVM_EXIT_IO, Vcpu.ExitReason);
            ushort port = Vcpu.State.io.port;
            byte value = Vcpu.IoData[0];
            Vcpu.ImmediateExit = true;
            Assert.Equal(Errno.EINTR, Vcpu.Run());
            Vcpu.ImmediateExit = false;
            Finish(port, value);
            return null;
        }

        Assert.Fail("the program did not end");
        return null;
    }

    public void Dispose()
    {
        Vcpu.Dispose();
        _vm.Dispose();
        _system.Dispose();
        Machine.Dispose();
    }

    private void Finish(ushort port, byte value)
    {
        Vcpu.GetRegs(out kvm_regs regs);
        Vcpu.GetSregs(out kvm_sregs sregs);
        Regs = regs;
        Sregs = sregs;
        if (port == TestGuest.FaultPort)
        {
            Vector = value;
            bool hasErrorCode = value is 8 or (>= 10 and <= 14) or 17;
            FaultErrorCode = hasErrorCode ? (uint)Machine.Read(regs.rsp) : 0;
            FaultRip = Machine.Read(regs.rsp + (hasErrorCode ? 8u : 0));
        }
        else
        {
            Assert.Equal(TestGuest.StopPort, port);
        }
    }
}
