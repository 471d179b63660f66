using System.Globalization;
using Iced.Intel;
using MicroVm.InstructionEmulator.Handlers;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Memory;

namespace MicroVm.InstructionEmulator;

/// <summary>
/// Completes instructions that the host's KVM cannot emulate (KVM_EXIT_INTERNAL_ERROR with
/// KVM_INTERNAL_ERROR_EMULATION): decodes at RIP, acts on registers, guest memory and extended state, raises the faults
/// that the processor would raise, and moves RIP on. One for each vCPU, used by its thread. On ordinary hosts it is never
/// entered. After the first instruction it allocates nothing.
/// </summary>
public sealed class Emulator
{
    private readonly KvmVcpu? _vcpu;
    private readonly IVcpuPort _port;
    private readonly GuestMemory _memory;
    private readonly XstateLayout? _layout;
    private Parts? _parts;

    /// <summary>Makes the assist of <paramref name="vcpu"/>, before the VMM gives up the right to map executable memory.</summary>
    public Emulator(KvmVcpu vcpu, GuestMemory memory)
        : this(new KvmVcpuPort(vcpu), memory, null)
    {
        _vcpu = vcpu;
        AtomicMemory.Prepare();
    }

    internal Emulator(IVcpuPort port, GuestMemory memory, XstateLayout? layout)
    {
        _port = port;
        _memory = memory;
        _layout = layout;
    }

    /// <summary>
    /// To be called when a run ended with KVM_EXIT_INTERNAL_ERROR. <see cref="AssistResult.Completed"/>: run on.
    /// </summary>
    /// <param name="failure">When unsupported: one line that names the instruction, its bytes, RIP, CPL and the reason.</param>
    public AssistResult TryComplete(out string? failure)
    {
        ref kvm_run run = ref (_vcpu ?? throw new InvalidOperationException("this assist has no KVM vCPU")).State;
        if (run.exit_reason != KvmAbi.KVM_EXIT_INTERNAL_ERROR || run.@internal.suberror != KvmAbi.KVM_INTERNAL_ERROR_EMULATION)
        {
            _port.Begin();
            failure = string.Create(
                CultureInfo.InvariantCulture,
                $"KVM internal error {run.@internal.suberror} (exit reason {run.exit_reason}) at RIP 0x{_port.Regs.rip:x}");
            return AssistResult.Unsupported;
        }

        _parts ??= new Parts(_port, _memory, _layout);
        _parts.Fetcher.SetBytes(ref run);
        return Complete(_parts, out failure);
    }

    /// <summary>Completes the instruction at RIP, from memory.</summary>
    public AssistResult CompleteFromMemory(out string? failure)
    {
        _parts ??= new Parts(_port, _memory, _layout);
        _parts.Fetcher.SetNoBytes();
        return Complete(_parts, out failure);
    }

    /// <summary>Adds <c>assist.&lt;mnemonic&gt;</c> for each instruction that was completed at least once.</summary>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        foreach (InstructionHandler handler in Volatile.Read(ref _parts)?.Table.Rows ?? [])
        {
            if (handler.Count > 0)
            {
                add(handler.CounterName, handler.Count);
            }
        }
    }

    private static AssistResult Complete(Parts parts, out string? failure)
    {
        AssistCpu cpu = parts.Cpu;
        failure = null;
        cpu.Port.Begin();
        cpu.Begin();
        Outcome outcome = parts.Fetcher.Decode(cpu, out Instruction instruction);
        InstructionHandler? handler = null;
        if (outcome == Outcome.Done)
        {
            // Bytes that are no instruction fault, as on a processor: the guest kernel then reports its own bug.
            handler = parts.Table.Find(instruction.Mnemonic);
            outcome = instruction.IsInvalid ? cpu.UndefinedOpcode()
                : handler is null ? cpu.Unsupported("no handler for it")
                : handler.Execute(cpu, in instruction);
        }

        if (outcome == Outcome.Unsupported)
        {
            failure = Describe(parts, instruction.Mnemonic, handler?.Name);
            return AssistResult.Unsupported;
        }

        Finish(cpu, outcome, instruction.Length);
        handler?.CountOne();
        return AssistResult.Completed;
    }

    private static void Finish(AssistCpu cpu, Outcome outcome, int length)
    {
        bool singleStep = false;
        if (outcome != Outcome.Fault)
        {
            ref kvm_regs regs = ref cpu.Regs;
            ulong next = regs.rip + (ulong)length;
            regs.rip = cpu.Bitness switch
            {
                16 => (ushort)next,
                32 => (uint)next,
                _ => next,
            };
            regs.rflags &= ~AssistCpu.FlagRf;
            singleStep = outcome == Outcome.Done && (regs.rflags & AssistCpu.FlagTf) != 0;
        }
        else if (cpu.FaultVector == KvmAbi.PF_VECTOR)
        {
            cpu.Sregs.cr2 = cpu.FaultAddress;
            cpu.Port.MarkSregsChanged();
        }

        cpu.Port.Commit();
        if (singleStep)
        {
            const ulong Dr6SingleStep = 1 << 14;
            cpu.Port.SetDr6(Dr6SingleStep);
            cpu.Port.InjectException(KvmAbi.DB_VECTOR, null);
        }
        else if (outcome == Outcome.Trap && cpu.IsSoftwareInterrupt)
        {
            cpu.Port.InjectSoftwareInterrupt(cpu.FaultVector);
        }
        else if (outcome is Outcome.Fault or Outcome.Trap)
        {
            cpu.Port.InjectException(cpu.FaultVector, cpu.FaultErrorCode);
        }
    }

    private static string Describe(Parts parts, Mnemonic mnemonic, string? name)
    {
        AssistCpu cpu = parts.Cpu;
        string bytes = Convert.ToHexString(parts.Fetcher.Bytes);
        string text = name ?? (mnemonic == Mnemonic.INVALID ? "?" : mnemonic.ToString());
        return string.Create(
            CultureInfo.InvariantCulture,
            $"KVM cannot emulate an instruction of the guest, and neither can the VMM: {text} (bytes {bytes}) at RIP 0x{cpu.Regs.rip:x}, CPL {cpu.Cpl}, {cpu.Bitness}-bit code: {cpu.FailureReason}");
    }

    /// <summary>What is needed only once an instruction turns up: the decoder's tables cost milliseconds.</summary>
    private sealed class Parts(IVcpuPort port, GuestMemory memory, XstateLayout? layout)
    {
        public AssistCpu Cpu { get; } = new(port, memory, layout ?? XstateLayout.Host);

        public InstructionFetcher Fetcher { get; } = new();

        public HandlerTable Table { get; } = new();
    }
}
