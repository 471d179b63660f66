using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace MicroVm.Tests.Shared.Fuzz;

/// <summary>
/// Which edges of our own code an attempt ran through, where <c>make fuzz</c> instrumented the assemblies (SharpFuzz, AFL's map of
/// 64 KiB): edges share entries now and then, and those of other threads are in it, too.
/// </summary>
internal static unsafe class CoverageMap
{
    private const int Size = 1 << 16;

    // The instrumented code writes here. Never freed: threads of an attempt may outlive it.
    private static readonly byte* HitsMemory = (byte*)NativeMemory.AllocZeroed(Size);
    private static readonly byte[] SeenHits = new byte[Size];
    private static bool s_isInstrumented;

    /// <summary>False in ordinary runs of the tests.</summary>
    public static bool IsInstrumented => s_isInstrumented;

    /// <summary>Edges seen by all attempts so far.</summary>
    public static int Edges => SeenHits.Count(s => s != 0);

    /// <summary>Starts an attempt.</summary>
    public static void Clear() => new Span<byte>(HitsMemory, Size).Clear();

    /// <summary>True when the attempt ran an edge for the first time, or, by AFL's classes, more often than any before it.</summary>
    public static bool TakeNew()
    {
        bool isNew = false;
        for (int i = 0; i < Size; i++)
        {
            if (HitsMemory[i] == 0)
            {
                continue;
            }

            byte kind = Class(HitsMemory[i]);
            isNew |= (SeenHits[i] & kind) == 0;
            SeenHits[i] |= kind;
        }

        return isNew;
    }

    // Instrumented code crashes without a map: before anything else of the assembly runs.
    [ModuleInitializer]
    internal static void Connect()
    {
        string file = Path.Combine(AppContext.BaseDirectory, "SharpFuzz.Common.dll");
        if (File.Exists(file))
        {
            Type trace = Assembly.LoadFrom(file).GetType("SharpFuzz.Common.Trace", throwOnError: true)!;
            trace.GetField("SharedMem", BindingFlags.Public | BindingFlags.Static)!.SetValue(null, Pointer.Box(HitsMemory, typeof(byte*)));
            s_isInstrumented = true;
        }
    }

    private static byte Class(byte hits) => hits switch
    {
        1 => 1,
        2 => 2,
        3 => 4,
        < 8 => 8,
        < 16 => 16,
        < 32 => 32,
        < 128 => 64,
        _ => 128,
    };
}
