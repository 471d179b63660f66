using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>Executes one decoded instruction on <paramref name="cpu"/>.</summary>
internal delegate Outcome HandlerMethod(AssistCpu cpu, in Instruction instruction);

/// <summary>A row of the handler table, with the count of what it has completed.</summary>
internal sealed class InstructionHandler(string name, HandlerMethod execute)
{
    private long _count;

    /// <summary>The counter's name: <c>assist.</c> and the mnemonic.</summary>
    public string CounterName { get; } = "assist." + name;

    /// <summary>The mnemonic in lower case.</summary>
    public string Name => name;

    /// <summary>How many were completed.</summary>
    public long Count => Volatile.Read(ref _count);

    /// <summary>Executes the instruction.</summary>
    public Outcome Execute(AssistCpu cpu, in Instruction instruction) => execute(cpu, in instruction);

    /// <summary>Counts one; called by the vCPU's thread only.</summary>
    public void CountOne() => Volatile.Write(ref _count, _count + 1);
}
