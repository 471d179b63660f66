using Iced.Intel;

namespace MicroVm.InstructionEmulator.Handlers;

/// <summary>Which instructions can be completed, by mnemonic. Each vCPU has a table of its own, so counting needs no lock.</summary>
internal sealed class HandlerTable
{
    private readonly Dictionary<int, InstructionHandler> _handlers = [];

    public HandlerTable()
    {
        TrapHandlers.Register(this);
        XsaveHandlers.Register(this);
        XrstorHandlers.Register(this);
        XcrHandlers.Register(this);
        SseStateHandlers.Register(this);
        SimdMoveHandlers.Register(this);
        BitCountHandlers.Register(this);
        BitManipulationHandlers.Register(this);
        WideMultiplyHandlers.Register(this);
        AtomicHandlers.Register(this);
        FlagHandlers.Register(this);
        SegmentBaseHandlers.Register(this);
        TimestampHandlers.Register(this);
        TlbHandlers.Register(this);
        HintHandlers.Register(this);
    }

    /// <summary>The rows.</summary>
    public IEnumerable<InstructionHandler> Rows => _handlers.Values;

    /// <summary>Adds a row.</summary>
    public void Add(Mnemonic mnemonic, string name, HandlerMethod execute) =>
        _handlers.Add((int)mnemonic, new InstructionHandler(name, execute));

    /// <summary>The row of an instruction, or null.</summary>
    public InstructionHandler? Find(Mnemonic mnemonic) => _handlers.GetValueOrDefault((int)mnemonic);
}
