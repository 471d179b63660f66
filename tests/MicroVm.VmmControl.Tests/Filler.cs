using System.Reflection;

namespace MicroVm.VmmControl.Tests;

/// <summary>Makes values of the JSON model in which nothing is left at its default.</summary>
internal sealed class Filler
{
    private int _next;

    internal T Fill<T>() => (T)Fill(typeof(T));

    /// <summary>A value of a type, with another number wherever there is one, and nothing left at its default.</summary>
    private object Fill(Type type)
    {
        type = Nullable.GetUnderlyingType(type) ?? type;
        if (type == typeof(string))
        {
            return $"text \"{++_next}\"";
        }

        if (type == typeof(bool))
        {
            return true;
        }

        if (type.IsEnum)
        {
            return Enum.GetValues(type).GetValue(Enum.GetValues(type).Length - 1)!;
        }

        if (type.IsPrimitive)
        {
            return Convert.ChangeType(++_next, type, System.Globalization.CultureInfo.InvariantCulture);
        }

        if (type.IsGenericType && type.GetGenericTypeDefinition() == typeof(IReadOnlyList<>))
        {
            Array list = Array.CreateInstance(type.GetGenericArguments()[0], 2);
            list.SetValue(Fill(type.GetGenericArguments()[0]), 0);
            list.SetValue(Fill(type.GetGenericArguments()[0]), 1);
            return list;
        }

        object value = Activator.CreateInstance(type)!;
        foreach (PropertyInfo property in type.GetProperties().Where(p => p.CanWrite))
        {
            property.SetValue(value, Fill(property.PropertyType));
        }

        return value;
    }
}
