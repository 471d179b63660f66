using MicroVm.Memory;

namespace MicroVm.Virtio.Mmio;

/// <summary>
/// What a device's interrupts are for (virtio 1.2, 4.2.2, InterruptStatus): bits in a register, or in a word of guest memory that the
/// driver named, which takes and clears them there without an exit. Any thread.
/// </summary>
/// <remarks>
/// The guest may write anything to its word at any time: whoever does so loses its own interrupts. Nothing here depends on what
/// is read there but whether the line is raised.
/// </remarks>
internal sealed class InterruptStatus
{
    /// <summary>Used Buffer Notification.</summary>
    public const int Used = 1;

    /// <summary>Configuration Change Notification.</summary>
    public const int Config = 2;

    private int _register;
    private volatile unsafe int* _word;

    /// <summary>Where the driver's word is; 0 for the register.</summary>
    public ulong Gpa { get; private set; }

    /// <summary>The register's value: what is pending and not kept in the guest's memory.</summary>
    public int Value => Volatile.Read(ref _register);

    /// <summary>The driver has bits to take from its memory.</summary>
    // Safe: TryMove checked the word to be 4 aligned bytes of RAM, which stays mapped as long as the device is there.
    public unsafe bool IsPending => _word is not null and var word && Volatile.Read(ref *word) != 0;

    /// <summary>Adds bits.</summary>
    /// <returns>
    /// The line is to be raised. Not when the driver's word has bits: then it was raised for them, and the driver looks at its queues
    /// after it has taken them.
    /// </returns>
    // Safe: the word was checked by TryMove; it is read once, so a reset meanwhile changes nothing here.
    public unsafe bool Add(int bits)
    {
        int* word = _word;
        if (word is null)
        {
            Interlocked.Or(ref _register, bits);
            word = _word;
            if (word is null)
            {
                return true;
            }

            // Named just now: the driver does not look at the register any more.
            bits = Interlocked.Exchange(ref _register, 0);
        }

        return Interlocked.Or(ref *word, bits) == 0;
    }

    /// <summary>The driver has taken <paramref name="bits"/> from the register.</summary>
    public void Acknowledge(int bits) => Interlocked.And(ref _register, ~bits);

    /// <summary>Keeps the bits in guest memory from now on, or, with the address 0, in the register.</summary>
    /// <param name="memory">Guest RAM.</param>
    /// <param name="gpa">Where: a multiple of 4.</param>
    /// <param name="isPending">Bits were set before, and moved there: the line is to be raised.</param>
    /// <returns>False, and the register is used, when there is no RAM at the address.</returns>
    // Safe: the word is aligned and inside RAM, or refused.
    public unsafe bool TryMove(GuestMemory memory, ulong gpa, out bool isPending)
    {
        isPending = false;
        _word = null;
        Gpa = 0;
        if (gpa == 0)
        {
            return true;
        }

        int* word = gpa % sizeof(int) == 0 ? (int*)memory.TryGetPointer(gpa, sizeof(int)) : null;
        if (word is null)
        {
            return false;
        }

        _word = word;
        Gpa = gpa;
        int bits = Interlocked.Exchange(ref _register, 0);
        isPending = bits != 0;
        if (isPending)
        {
            Interlocked.Or(ref *word, bits);
        }

        return true;
    }

    /// <summary>Forgets the driver's word and all bits.</summary>
    // Safe: the pointer is cleared, not followed.
    public unsafe void Reset()
    {
        _word = null;
        Gpa = 0;
        Interlocked.Exchange(ref _register, 0);
    }

    /// <summary>Gives a new object the bits and the place of a saved one.</summary>
    /// <returns>False when there is no RAM at the place.</returns>
    public bool TryRestore(GuestMemory memory, int register, ulong gpa)
    {
        // Bits that are left in the register of a driver with a word are moved there.
        Interlocked.Exchange(ref _register, register);
        return TryMove(memory, gpa, out _);
    }
}
